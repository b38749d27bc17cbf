from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from qexp.deploy.runtimes.torch_int8 import int8_matmul


@given(inner=st.integers(1, 100), width=st.integers(1, 100))
def test_padding_is_the_least_that_a_gpu_takes(inner, width):
    added = int8_matmul.padding(inner, width)
    assert (inner + added[0]) % 8 == (width + added[1]) % 8 == 0
    assert max(added) < 8


def test_a_weight_for_a_gpu_is_padded_with_zeros_and_lies_by_columns():
    weight = torch.randint(-128, 128, (13, 3), dtype=torch.int8)
    padded = int8_matmul.padded_weight(weight, torch.device("cuda"))
    assert padded.shape == (16, 8) and padded.stride() == (1, 16)
    assert torch.equal(padded[:13, :3], weight) and padded.count_nonzero() == weight.count_nonzero()
    assert int8_matmul.padded_weight(weight, torch.device("cpu")).shape == weight.shape


@given(
    rows=st.integers(1, 20), inner=st.integers(1, 40), width=st.integers(1, 20),
    zero=st.integers(-128, 127), seed=st.integers(0, 99), flat=st.booleans(), padded=st.booleans(),
)  # fmt: skip
def test_a_product_is_that_of_what_the_integers_stand_for(rows, inner, width, zero, seed, flat, padded):
    with pytest.MonkeyPatch.context() as patch:
        if padded:  # as on a GPU: what _int_mm sees has sizes that it takes there
            patch.setattr(int8_matmul, "PADDED", {"cpu"})
            patch.setattr(torch, "_int_mm", _as_on_a_gpu)
        _check_product(rows, inner, width, zero, seed, flat)


PLAIN_PRODUCT = torch._int_mm


def _as_on_a_gpu(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    assert left.shape[0] > 16 and left.shape[1] % 8 == 0 and right.shape[1] % 8 == 0
    assert left.is_contiguous() and right.t().is_contiguous()
    return PLAIN_PRODUCT(left, right)


def _check_product(rows: int, inner: int, width: int, zero: int, seed: int, flat: bool) -> None:
    generator = np.random.default_rng(seed)
    q = generator.integers(-128, 128, (rows, inner) if flat else (2, rows, inner)).astype(np.int8)
    weight = generator.integers(-128, 128, (inner, width)).astype(np.int8)
    scale = generator.uniform(1e-4, 1e-1, width).astype(np.float32)
    result = int8_matmul.product(
        torch.from_numpy(q),
        int8_matmul.padded_weight(torch.from_numpy(weight), torch.device("cpu")),
        zero * torch.from_numpy(weight).sum(0, dtype=torch.int32),
        torch.from_numpy(scale),
        torch.float32,
    )
    expected = (q.astype(np.float64) - zero) @ weight.astype(np.float64) * scale
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


@given(
    kind=st.sampled_from([np.int8, np.uint8, np.int16]), scale=st.floats(1e-3, 10), part=st.floats(0, 1),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_quantizing_is_as_the_standard_has_it(kind, scale, part, seed):
    limits, step = np.iinfo(kind), np.array(scale, np.float32)
    zero = np.array(int(limits.min + part * (int(limits.max) - int(limits.min))), kind)
    spread = float(step) * (int(limits.max) - int(limits.min))
    x = (np.random.default_rng(seed).uniform(-1, 1, 200) * spread).astype(np.float32)
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    back = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])
    feed = {"s": step, "z": zero}
    stored = ReferenceEvaluator(node, opsets={"": 21}).run(None, {"x": x} | feed)[0]
    values = ReferenceEvaluator(back, opsets={"": 21}).run(None, {"q": stored} | feed)[0]
    parameters = torch.from_numpy(step), torch.from_numpy(zero)
    q = int8_matmul.quantize(torch.from_numpy(x), *parameters)
    assert q.dtype == torch.from_numpy(stored).dtype
    near_tie = np.abs(np.abs(x / step - np.floor(x / step)) - 0.5) < 1e-3
    assert np.array_equal(q.numpy()[~near_tie], stored[~near_tie])
    np.testing.assert_allclose(
        int8_matmul.dequantize(torch.from_numpy(stored), *parameters), values, rtol=1e-6
    )


def test_scales_along_an_axis():
    x = torch.tensor([[1.0, 10.0], [2.0, 30.0]])
    scale, zero = torch.tensor([1.0, 10.0]), torch.tensor([0, 5], dtype=torch.int8)
    q = int8_matmul.quantize(x, scale, zero, axis=-1)
    assert q.tolist() == [[1, 6], [2, 8]]
    assert int8_matmul.dequantize(q, scale, zero, axis=1).tolist() == x.tolist()


@pytest.mark.parametrize(("zero", "moved"), [(0, -128), (128, 0), (255, 127)])
def test_an_unsigned_grid_is_moved(zero, moved):
    result = int8_matmul.signed(torch.tensor(zero, dtype=torch.uint8))
    assert (result.item(), result.dtype) == (moved, torch.int8)
    assert int8_matmul.signed(torch.tensor(7, dtype=torch.int8)).item() == 7


def test_this_machine_multiplies_the_largest_values_exactly_or_says_so(monkeypatch):
    int8_matmul.exact.cache_clear()
    assert int8_matmul.exact("cpu") in (True, False)
    int8_matmul.exact.cache_clear()

    def saturating(left: torch.Tensor, right: torch.Tensor, *, few: bool) -> torch.Tensor:
        return (left.int() @ right.int()).clamp(-(2**15), 2**15 - 1)

    monkeypatch.setattr(int8_matmul, "multiply", saturating)
    assert int8_matmul.exact("cpu") is False
    int8_matmul.exact.cache_clear()
