"""Weights with a range for each block of inputs, against ONNX's reference evaluator and channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from pydantic import ValidationError
from torch import Tensor

from qexp.config import (
    Calibrator,
    ClipCalibrator,
    MaxCalibrator,
    MseCalibrator,
    Override,
    Placement,
    Quant,
    QuantizationConfig,
    Scheme,
    SqnrCalibrator,
    WeightScheme,
)
from qexp.errors import QuantizationError
from qexp.quant.algorithms.adaround import adaround
from qexp.quant.calibration.estimators import weight_range
from qexp.quant.fake_quantize import choose_kernels
from qexp.quant.grid import dequantize, fake_quantize, quantize, scale_and_zero_point, weight_grid
from qexp.quant.insertion.insert import insert
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode
from tests.support.tiny_models import build

CALIBRATORS: list[Calibrator] = [
    MaxCalibrator(kind="max"),
    MseCalibrator(kind="mse", weights="mse"),
    SqnrCalibrator(kind="sqnr", weights="sqnr"),
    ClipCalibrator(kind="clip", weight_clip_max=0.5, activation_clip_max=1.0),
]
TYPES = {(4, True): TensorProto.INT4, (4, False): TensorProto.UINT4, (8, True): TensorProto.INT8,
         (8, False): TensorProto.UINT8}  # fmt: skip


def weight(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Values whose magnitude differs from block to block."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.rand(rows, columns, generator=generator)


def by_onnx(x: Tensor, scale: Tensor, zero_point: Tensor, kind: int, block: int) -> np.ndarray:
    """QuantizeLinear and DequantizeLinear of opset 21 with ``block_size``; scale is [out, blocks]."""
    names = ["scale", "zero"]
    along = {"axis": 1, "block_size": block}
    nodes = [
        helper.make_node("Cast", ["points"], ["zero"], to=kind),
        helper.make_node("QuantizeLinear", ["x", *names], ["q"], **along),
        helper.make_node("DequantizeLinear", ["q", *names], ["y"], **along),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "scale", "points")
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    model = helper.make_model(
        helper.make_graph(nodes, "blocks", inputs, outputs), opset_imports=[helper.make_opsetid("", 21)]
    )
    feed = {"x": x.numpy(), "scale": scale.numpy(), "points": zero_point.float().numpy()}
    return np.asarray(ReferenceEvaluator(model).run(None, feed)[0])


@given(
    rows=st.integers(1, 5), blocks=st.integers(1, 4), size=st.sampled_from([16, 32]),
    bits=st.sampled_from([4, 8]), symmetric=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_equals_the_operators_of_onnx_in_blocks(
    rows: int, blocks: int, size: Any, bits: int, symmetric: bool, seed: int
) -> None:
    x = weight(rows, blocks * size, seed)
    scheme = WeightScheme(group_size=size, symmetric=symmetric, narrow=not symmetric)
    grid = weight_grid(bits, scheme)
    assert grid is not None
    scale, zero = scale_and_zero_point(*weight_range(x, MaxCalibrator(kind="max"), grid), grid)
    assert scale.shape == (rows * blocks,)
    expected = by_onnx(x, grid.table(scale, rows), grid.table(zero, rows), TYPES[bits, symmetric], size)
    np.testing.assert_array_equal(fake_quantize(x, scale, zero, grid).numpy(), expected)
    quantizer = Quantizer("w", grid, rows * blocks)
    quantizer.set_scale(scale, zero)
    quantizer.switch(QuantizerMode.FROZEN)
    with torch.no_grad():
        np.testing.assert_array_equal(quantizer._fake_quantize(x).numpy(), expected)
    assert torch.equal(dequantize(quantizer.integers(x), scale, zero, grid), torch.from_numpy(expected))


def learned(x: Tensor, block: Any, calibrator: Calibrator, symmetric: bool, delayed: Tensor) -> list[Tensor]:
    """Ranges, values, and the gradients of weight and scales of a learned quantizer."""
    grid = weight_grid(4, WeightScheme(group_size=block, symmetric=symmetric))
    assert grid is not None
    quantizer = Quantizer("w", grid, len(x) if block is None else x.numel() // block)
    quantizer.set_range(*weight_range(x, calibrator, grid))
    quantizer.switch(QuantizerMode.LEARNED)
    moved = (x * 1.5).requires_grad_()
    y = quantizer._fake_quantize(moved)
    y.backward(delayed)
    gradients = [moved.grad, *(each.grad for each in quantizer.learned)]
    assert all(each is not None for each in gradients)
    return [quantizer.scale, quantizer.zero_point, y.detach(), *gradients]  # type: ignore[list-item]


@pytest.mark.parametrize("kernels", ["auto", "plain"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=lambda each: each.kind)
def test_one_block_for_a_row_is_a_channel(calibrator: Calibrator, symmetric: bool, kernels: Any) -> None:
    x, incoming = weight(7, 64), weight(7, 64, seed=1)
    choose_kernels(kernels)
    try:
        channel, block = (learned(x, size, calibrator, symmetric, incoming) for size in (None, 64))
        parts = [learned(x, size, calibrator, symmetric, incoming) for size in (16,)]
        alone = learned(x.reshape(-1, 16), 16, calibrator, symmetric, incoming.reshape(-1, 16))
    finally:
        choose_kernels("auto")
    for one, other in zip(channel, block, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(parts[0], alone, strict=True):
        assert torch.equal(one.flatten(), other.flatten())


def test_finer_ranges_come_closer() -> None:
    x = weight(8, 256)
    errors = []
    for size in (None, 128, 64, 32, 16):
        grid = weight_grid(4, WeightScheme(group_size=size))  # type: ignore[arg-type]
        assert grid is not None
        scale, zero = scale_and_zero_point(*weight_range(x, MaxCalibrator(kind="max"), grid), grid)
        errors.append(float((fake_quantize(x, scale, zero, grid) - x).square().sum()))
    assert errors == sorted(errors, reverse=True)


def test_adaround_in_blocks() -> None:
    x, samples = weight(6, 64), weight(400, 64, seed=2) + 0.3
    gram = samples.T @ samples / len(samples)
    results = {}
    for size in (None, 64, 16):
        grid = weight_grid(3, WeightScheme(group_size=size))  # type: ignore[arg-type]
        assert grid is not None
        scale, zero = scale_and_zero_point(*weight_range(x, MaxCalibrator(kind="max"), grid), grid)
        results[size] = adaround(x, scale, zero, grid=grid, gram=gram, iterations=200)
        again = dequantize(quantize(results[size].weight, scale, zero, grid), scale, zero, grid)
        assert torch.equal(again, results[size].weight)  # values of the grid
    assert torch.equal(results[None].weight, results[64].weight)
    assert results[16].error < 0.9 * results[16].nearest
    assert results[16].error < results[None].error


def inserted(scheme: Scheme, *sites: Any, **overrides: Override) -> Any:
    quant = Quant(
        weight_bits=4, activation_bits=32, overrides={f"*{key}*": each for key, each in overrides.items()}
    )
    config = QuantizationConfig(placement=Placement(name="some", sites=sites), scheme=scheme, quant=quant)
    return insert(build("bert"), config)


def test_tables_have_blocks_and_norms_have_not() -> None:
    quantization = inserted(
        Scheme(weight=WeightScheme(group_size=16)), "embedding.weight", "layernorm.weight"
    )
    table = quantization.quantizers["bert.embeddings.word_embeddings:embedding.weight"]
    assert table.scale.shape == (50 * 32 // 16,)
    assert all(each.scale.dim() == 0 for name, each in quantization.quantizers.items() if "LayerNorm" in name)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"group_size": 32, "granularity": "per_tensor"}, "group_size=32 with granularity=per_tensor"),
        ({"group_size": 48}, "16, 32, 64, 128 or 256"),
    ],
)
def test_settings_without_sense_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        WeightScheme(**fields)


def test_norms_in_blocks_are_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"layernorm\.group_size=16: the weight of a LayerNorm is a vector"
    ):
        Scheme(layernorm=WeightScheme(group_size=16))
    in_blocks = Override(weight=WeightScheme(group_size=16))
    with pytest.raises(
        QuantizationError, match=r"LayerNorm\.weight has the shape \[32\], and blocks are of mat"
    ):
        inserted(Scheme(), "layernorm.weight", LayerNorm=in_blocks)


def test_a_width_that_the_size_does_not_divide_is_refused() -> None:
    words = (
        r"^group_size=64: bert\.encoder\.layer\.0\.attention\.self\.query\.weight has 32 inputs, which it "
        r"does not divide; allowed are 16, 32, null, in scheme\.weight, or in an override for this "
        r"weight alone$"
    )
    with pytest.raises(QuantizationError, match=words):
        inserted(Scheme(weight=WeightScheme(group_size=64)), "linear.weight")


def test_an_unset_size_is_no_part_of_a_key() -> None:
    assert "group_size" not in WeightScheme().model_dump(mode="json")
    assert WeightScheme(group_size=32).model_dump(mode="json")["group_size"] == 32
