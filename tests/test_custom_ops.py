from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.custom_ops import dequantize, fake_quantize

FLOATS = st.floats(-1e4, 1e4, width=32)
BITS = st.integers(2, 16)


def _grid(bits: int, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.float32, (3, 5), elements=FLOATS), BITS, st.booleans(), st.integers(-8, 4), st.data())
def test_agrees_with_torch_where_its_reciprocal_is_exact(x, bits, signed, exponent, data):
    qmin, qmax = _grid(bits, signed)
    zero_point = data.draw(st.integers(qmin, qmax))
    scale = 2.0**exponent
    expected = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), scale, zero_point, qmin, qmax)
    got = fake_quantize(torch.from_numpy(x), torch.tensor([scale]), torch.tensor(zero_point), -1, qmin, qmax)
    assert torch.equal(got, expected)


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.float32, (3, 5), elements=FLOATS), BITS, st.booleans(), st.integers(0, 1), st.data())
def test_each_channel_has_its_own_scale(x, bits, signed, axis, data):
    qmin, qmax = _grid(bits, signed)
    channels = x.shape[axis]
    scales = data.draw(st.lists(st.floats(2**-10, 10, width=32), min_size=channels, max_size=channels))
    zeros = data.draw(st.lists(st.integers(qmin, qmax), min_size=channels, max_size=channels))
    got = fake_quantize(torch.from_numpy(x), torch.tensor(scales), torch.tensor(zeros), axis, qmin, qmax)
    for index in range(channels):
        row = torch.from_numpy(x).select(axis, index)
        alone = fake_quantize(row, torch.tensor(scales[index]), torch.tensor(zeros[index]), -1, qmin, qmax)
        assert torch.equal(got.select(axis, index), alone)


def test_halves_round_to_even_and_values_saturate():
    x = torch.tensor([-100.0, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 100.0])
    got = fake_quantize(x, torch.tensor(1.0), torch.tensor(0), -1, -8, 7)
    assert got.tolist() == [-8.0, -2.0, -2.0, -0.0, 0.0, 2.0, 2.0, 7.0]


def test_division_is_a_division():
    # 4.5 / 9 is a tie and rounds to 0; times the float32 nearest to 1 / 9 it would not always be one.
    ties = torch.arange(1, 2000, 2) * torch.tensor(4.5)
    got = fake_quantize(ties, torch.tensor(9.0), torch.tensor(0), -1, -32768, 32767)
    expected = np.round(ties.double().numpy() / 9) * 9
    assert np.array_equal(got.numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.uint16])
def test_dequantize_covers_the_whole_type(dtype):
    limits = torch.iinfo(dtype)
    q = torch.tensor([[limits.min, 1, limits.max]], dtype=torch.int32).to(dtype)
    got = dequantize(q, torch.tensor([0.5]), torch.tensor([1], dtype=torch.int32), 0)
    assert got.tolist() == [[(limits.min - 1) / 2, 0.0, (limits.max - 1) / 2]]


def test_stored_weight_equals_its_simulation():
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    scale, zero = weight.abs().amax(1) / 7, torch.zeros(6, dtype=torch.int32)
    q = (weight / scale[:, None]).round().clamp(-7, 7).to(torch.int8)
    assert torch.equal(dequantize(q, scale, zero, 0), fake_quantize(weight, scale, zero, 0, -7, 7))


@pytest.mark.parametrize("axis", [-1, 1])
def test_operators_keep_the_rules_of_torch_library(axis):
    size = 1 if axis == -1 else 4
    scale, zero = torch.full((size,), 0.1), torch.zeros(size, dtype=torch.int32)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(fake_quantize, (torch.randn(3, 4), scale, zero, axis, -8, 7), test_utils=checks)
    q = torch.randint(-8, 8, (3, 4), dtype=torch.int8)
    torch.library.opcheck(dequantize, (q, scale, zero, axis), test_utils=checks)
