"""Grids of floats, against casts of torch and ml_dtypes, and quantizers of ModelOpt.

The numbers of ModelOpt are computed by it where it is installed; its GPU kernels are not needed.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

from qexp.config import MaxCalibrator, MseCalibrator, NumberFormat
from qexp.errors import QuantizationError
from qexp.quant.calibration.estimators import activation_range, weight_range
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.element_formats import E2M1, E4M3, E5M2, ElementFormat
from qexp.quant.float_grid import BlockGrid, float_grid
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode

DTYPES: dict[str, Any] = {
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp4_e2m1": ml_dtypes.float4_e2m1fn,
}


def spread(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw) * torch.exp(3 * torch.randn(shape, generator=draw))


def codes(element: ElementFormat) -> Tensor:
    """Return all finite values of a format, from ml_dtypes."""
    integers = np.arange(1 << element.bits, dtype=np.uint8)
    values = integers.view(DTYPES[element.name]).astype(np.float32)
    return torch.from_numpy(values[np.isfinite(values)])


def quantizer(number_format: NumberFormat, low: float = -3.0, high: float = 2.0) -> Quantizer:
    made = Quantizer("x", float_grid(number_format))
    made.set_range(torch.tensor(low), torch.tensor(high))
    made.switch(QuantizerMode.FROZEN)
    return made


@pytest.mark.parametrize("element", [E4M3, E5M2, E2M1])
def test_all_codes_and_the_middles_between_them_round_as_ml_dtypes(element: ElementFormat) -> None:
    values = codes(element).unique()
    assert float(values.max()) == element.largest
    middles = (values[1:] + values[:-1]) / 2
    near = [torch.nextafter(middles, torch.tensor(end)) for end in (-torch.inf, torch.inf)]
    x = torch.cat([values, middles, *near, spread(20_000).clamp(-element.largest, element.largest)])
    theirs = x.numpy().astype(DTYPES[element.name]).astype(np.float32)
    np.testing.assert_array_equal(element.round(x).numpy(), theirs)
    assert torch.equal(element.round(codes(element)), codes(element))
    zeros = element.round(torch.tensor([-0.0, -1e-30, 1e-30]))
    assert torch.signbit(zeros).tolist() == [True, True, False]


@pytest.mark.parametrize("element", [E4M3, E5M2, E2M1])
def test_rounding_saturates_and_keeps_nan(element: ElementFormat) -> None:
    x = torch.tensor([1e30, -1e30, torch.inf, -torch.inf, torch.nan])
    largest = float(element.largest)
    assert element.round(x)[:4].tolist() == [largest, -largest, largest, -largest]
    assert bool(element.round(x)[4].isnan())


def test_scale_is_the_largest_magnitude_over_448() -> None:
    made = quantizer("fp8_e4m3")
    assert made.scale == torch.tensor(3.0) / 448
    assert made.zero_point == 0
    with torch.no_grad():
        assert made(torch.tensor([-3.0, 3.5, -7.0])).tolist() == [-3.0, 3.0, -3.0]


@pytest.mark.parametrize("axis", [None, 0])
def test_fp8_is_that_of_modelopt(axis: int | None) -> None:
    tensor_quant = pytest.importorskip("modelopt.torch.quantization.tensor_quant")
    weight = spread(64, 96)
    largest = weight.abs().amax() if axis is None else weight.abs().amax(1)
    made = Quantizer("x", float_grid("fp8_e4m3", axis), None if axis is None else 64)
    made.set_range(-largest, largest)
    made.switch(QuantizerMode.FROZEN)
    with torch.no_grad():
        ours = made(weight)
    theirs = tensor_quant.fp8_eager(weight, largest if axis is None else largest[:, None])
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_nvfp4_is_that_of_modelopt_bit_for_bit() -> None:
    qtensor = pytest.importorskip("modelopt.torch.quantization.qtensor")
    for seed in range(5):
        weight = spread(64, 96, seed=seed)
        weight[3, :16] = 0
        stored, scales, of_tensor = qtensor.NVFP4QTensor.quantize(weight, 16)
        theirs = stored.dequantize(
            dtype=torch.float32, scale=scales, double_scale=of_tensor, block_sizes={-1: 16}
        )
        made = quantizer("nvfp4", -float(weight.abs().max()), 0.0)
        with torch.no_grad():
            assert torch.equal(made(weight), theirs)


def test_mxfp8_is_that_of_modelopt_bit_for_bit() -> None:
    qtensor = pytest.importorskip("modelopt.torch.quantization.qtensor")
    for seed in range(5):
        weight = spread(64, 96, seed=seed)
        weight[3, :32] = 0
        stored, scales = qtensor.MXFP8QTensor.quantize(weight)
        theirs = stored.dequantize(dtype=torch.float32, scale=scales, block_sizes={-1: 32})
        made = Quantizer("x", float_grid("mxfp8"))
        made.switch(QuantizerMode.FROZEN)
        with torch.no_grad():
            assert torch.equal(made(weight), theirs)


def test_scales_of_mxfp8_are_the_smallest_powers_of_two_that_do_not_clip() -> None:
    grid = float_grid("mxfp8")
    assert isinstance(grid, BlockGrid)
    for largest, step in ((448.0, 1.0), (448.1, 2.0), (224.0, 0.5), (2.0**-120, 2.0**-127)):
        x = torch.zeros(1, 32)
        x[0, 0], x[0, 1] = largest, step * 2.0**-9  # the smallest E4M3
        assert grid.fake_quantize(x, torch.tensor(0.0))[0, 1] == step * 2.0**-9


@pytest.mark.parametrize("number_format", ["mxfp8", "nvfp4"])
def test_a_last_block_may_be_smaller(number_format: NumberFormat) -> None:
    made = quantizer(number_format) if number_format == "nvfp4" else Quantizer("x", float_grid("mxfp8"))
    made.switch(QuantizerMode.FROZEN)
    x = spread(2, 3, 40).clamp(-3, 3)
    with torch.no_grad():
        whole, rest = made(x), made(x[..., 32:].clone())
    assert whole.shape == x.shape
    assert torch.equal(whole[..., 32:], rest)


def test_gradient_passes_inside_the_range() -> None:
    made, x = quantizer("fp8_e4m3"), torch.tensor([-3.1, -3.0, 0.1, 2.9, 3.2], requires_grad=True)
    made(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_a_learned_scale_has_the_gradient_of_lsq() -> None:
    made, x = quantizer("fp8_e4m3"), spread(400).requires_grad_()
    scale = made.scale.clone()
    made.switch(QuantizerMode.LEARNED)
    made(x).sum().backward()
    assert made.log_scale is not None
    v = x.detach() / scale
    slopes = torch.where(v.abs() <= 448, E4M3.round(v) - v, 448 * v.sign())
    expected = slopes.sum() * scale / (400 * 448) ** 0.5
    torch.testing.assert_close(made.log_scale.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("number_format", ["mxfp8", "nvfp4"])
def test_scales_of_blocks_are_not_learned(number_format: NumberFormat) -> None:
    made = quantizer("nvfp4") if number_format == "nvfp4" else Quantizer("x", float_grid("mxfp8"))
    made.switch(QuantizerMode.LEARNED)
    assert made.mode is QuantizerMode.FROZEN
    x = spread(4, 32).requires_grad_()
    made(x).sum().backward()
    assert x.grad is not None
    assert bool((x.grad == 1).all())


def test_mse_finds_a_range_of_less_error_than_the_largest_value() -> None:
    statistics = CalibrationStatistics()
    x = torch.randn(64, 64, 16, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0] = 7e4  # beside it, all others are below the smallest E4M3
    statistics.add("x", x)
    grid, errors = float_grid("fp8_e4m3"), []
    for calibrator in (MseCalibrator(kind="mse", candidates=20), MaxCalibrator(kind="max")):
        made = Quantizer("x", grid)
        made.set_range(*activation_range(statistics["x"], calibrator, grid))
        made.switch(QuantizerMode.FROZEN)
        with torch.no_grad():
            errors.append(float((made(x) - x).square().sum()))
    assert errors[0] <= errors[1]
    rows = torch.cat([spread(5, 200), torch.full((5, 1), 449.0)], 1)
    grid = float_grid("fp8_e4m3", 0)
    low, high = weight_range(rows, MseCalibrator(kind="mse", weights="mse"), grid)
    best, usual = Quantizer("w", grid, 5), Quantizer("w", grid, 5)
    best.set_range(low, high)
    usual.set_range(-rows.abs().amax(1), rows.abs().amax(1))
    for each in (best, usual):
        each.switch(QuantizerMode.FROZEN)
    with torch.no_grad():
        assert float((best(rows) - rows).square().sum()) <= float((usual(rows) - rows).square().sum())


def test_there_are_no_integers_and_no_entropy() -> None:
    with pytest.raises(QuantizationError, match="x is on fp8_e4m3, a grid of floats"):
        quantizer("fp8_e4m3").integers(torch.ones(3))
    with pytest.raises(QuantizationError, match="calibrator=mse: it searches ranges that nvfp4 has not"):
        weight_range(torch.ones(4, 16), MseCalibrator(kind="mse", weights="mse"), float_grid("nvfp4"))
