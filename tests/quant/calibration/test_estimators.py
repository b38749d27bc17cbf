"""Ranges compared with numpy, torch.ao's observers and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.ao.quantization.observer import MovingAverageMinMaxObserver, PerChannelMinMaxObserver

from qexp.config import (
    AnyCalibrator,
    Calibrator,
    ClipCalibrator,
    EmaCalibrator,
    EntropyCalibrator,
    MaxCalibrator,
    MseCalibrator,
    PercentileCalibrator,
)
from qexp.errors import QuantizationError
from qexp.quant.calibration.estimators import activation_range, weight_range
from qexp.quant.calibration.statistics import CalibrationStatistics, ValueStatistics
from qexp.quant.grid import Grid, fake_quantize, scale_and_zero_point

SYMMETRIC = Grid(8, signed=True, symmetric=True)
ASYMMETRIC = Grid(8, signed=False, symmetric=False)
MAX = MaxCalibrator(kind="max")


def batches(count: int = 5, seed: int = 0) -> list[Tensor]:
    """Batches of a skewed distribution with outliers."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2000, generator=generator).exp() - 0.8 for _ in range(count)]


def observed(data: list[Tensor]) -> ValueStatistics:
    """Statistics over batches."""
    statistics = CalibrationStatistics()
    for batch in data:
        statistics.add("value", batch)
    return statistics["value"]


def ends(data: list[Tensor], calibrator: AnyCalibrator, grid: Grid) -> tuple[float, float]:
    """The range over batches."""
    low, high = activation_range(observed(data), calibrator, grid)
    return float(low), float(high)


def width(data: list[Tensor]) -> float:
    """Bin width after these batches, while nothing was merged."""
    return float(data[0].abs().max()) / 2048


def test_max_is_the_range_of_all_values() -> None:
    data = batches()
    values = torch.cat(data).numpy()
    assert ends(data, MAX, SYMMETRIC) == (float(values.min()), float(values.max()))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_ema_is_that_of_torchs_observer(decay: float) -> None:
    data = batches()
    observer = MovingAverageMinMaxObserver(averaging_constant=1 - decay)
    for batch in data:
        observer(batch)
    result = ends(data, EmaCalibrator(kind="ema", decay=decay), ASYMMETRIC)
    np.testing.assert_allclose(result, [float(observer.min_val), float(observer.max_val)], rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_ema_is_the_weighted_mean_of_the_batches(decay: float) -> None:
    """Unrolled: a batch weighs ``(1 - decay) * decay ** later``, and the first one ``decay ** later``."""
    data = batches(7)
    weights = np.array([1.0] + [1 - decay] * 6) * decay ** np.arange(6.0, -1, -1)
    expected = [weights @ [float(end(batch)) for batch in data] for end in (torch.amin, torch.amax)]
    result = ends(data, EmaCalibrator(kind="ema", decay=decay), ASYMMETRIC)
    np.testing.assert_allclose(result, expected, rtol=1e-12)


@pytest.mark.parametrize("percentile", [50.0, 99.0, 99.9, 99.99, 100.0])
def test_percentile_of_the_magnitudes_within_a_bin(percentile: float) -> None:
    data = batches()
    low, high = ends(data, PercentileCalibrator(kind="percentile", percentile=percentile), SYMMETRIC)
    magnitudes = np.abs(torch.cat(data).numpy())
    expected = np.percentile(magnitudes, percentile, method="inverted_cdf")
    assert abs(max(-low, high) - expected) <= width(data) * 1.001


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 100.0])
def test_percentile_of_both_tails_within_a_bin(percentile: float) -> None:
    data = batches()
    result = ends(data, PercentileCalibrator(kind="percentile", percentile=percentile), ASYMMETRIC)
    values, tail = torch.cat(data).numpy(), (100 - percentile) / 2
    expected = np.percentile(values, [tail, 100 - tail], method="inverted_cdf")
    np.testing.assert_allclose(result, expected, atol=width(data) * 1.001)


def squared_error(values: Tensor, low: float, high: float, grid: Grid) -> float:
    """Error of quantizing the values themselves."""
    scale, zero = scale_and_zero_point(torch.tensor(low), torch.tensor(high), grid)
    return float((fake_quantize(values, scale, zero, grid) - values).double().square().sum())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_mse_is_as_good_as_brute_force_over_the_values(bits: int) -> None:
    grid, data = Grid(bits, signed=True, symmetric=True), batches(2)
    values = torch.cat(data)
    low, high = ends(data, MseCalibrator(kind="mse", candidates=50), grid)
    full = float(values.abs().max())
    best = min(squared_error(values, -full * i / 50, full * i / 50, grid) for i in range(1, 51))
    assert squared_error(values, low, high, grid) <= best * 1.02
    assert best <= squared_error(values, -full, full, grid)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_mse_of_an_asymmetric_grid_never_loses_to_the_full_range(bits: int) -> None:
    grid, data = Grid(bits, signed=False, symmetric=False), batches(2)
    values = torch.cat(data)
    low, high = ends(data, MseCalibrator(kind="mse"), grid)
    full = squared_error(values, float(values.min()), float(values.max()), grid)
    assert squared_error(values, low, high, grid) <= full * 1.02


def test_sixteen_bits_do_not_clip_although_bins_are_coarser_than_steps() -> None:
    grid, data = Grid(16, signed=True, symmetric=True), batches(2)
    low, high = ends(data, MseCalibrator(kind="mse"), grid)
    assert max(-low, high) > 0.9 * float(torch.cat(data).abs().max())


@pytest.mark.parametrize("calibrator", [MAX, EmaCalibrator(kind="ema"), MseCalibrator(kind="mse")])
def test_all_zeros_have_an_empty_range(calibrator: AnyCalibrator) -> None:
    assert ends([torch.zeros(5)], calibrator, SYMMETRIC) == (0.0, 0.0)
    assert ends([torch.zeros(5)], PercentileCalibrator(kind="percentile"), SYMMETRIC) == (0.0, 0.0)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_weight_max(axis: int | None) -> None:
    weight = torch.randn(6, 9)
    grid = Grid(8, signed=True, symmetric=True, narrow=True, axis=axis)
    low, high = weight_range(weight, MAX, grid)
    observer = PerChannelMinMaxObserver(ch_axis=axis or 0)
    observer(weight if axis is not None else weight.reshape(1, -1))
    assert torch.equal(low.reshape(-1), observer.min_val)
    assert torch.equal(high.reshape(-1), observer.max_val)
    assert low.shape == (() if axis is None else (weight.shape[axis],))


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("axis", [None, 0])
def test_weight_mse_is_the_best_candidate_of_each_row(
    bits: int, symmetric: bool, axis: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qexp.quant.calibration.mse.BLOCK", 20)  # rows and columns both fall into blocks
    torch.manual_seed(1)
    weight = torch.randn(5, 30)
    grid = Grid(bits, signed=symmetric, symmetric=symmetric, axis=axis)
    low, high = weight_range(weight, Calibrator(weights="mse"), grid)
    rows = weight if axis == 0 else weight.reshape(1, -1)
    one = Grid(bits, signed=symmetric, symmetric=symmetric)
    for row, result in zip(rows, zip(low.reshape(-1), high.reshape(-1), strict=True), strict=True):
        a, b = float(row.min()), float(row.max())
        errors = [squared_error(row, a * i / 100, b * i / 100, one) for i in range(1, 101)]
        assert squared_error(row, float(result[0]), float(result[1]), one) <= min(errors) * (1 + 1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_left_to_the_quantizer(bad: float) -> None:
    weight = torch.randn(4, 6)
    weight[2, 3] = bad
    grid = Grid(8, signed=True, symmetric=True, axis=0)
    low, high = weight_range(weight, Calibrator(weights="mse"), grid)
    torch.testing.assert_close(
        torch.stack([low, high]), torch.stack([weight.amin(1), weight.amax(1)]), equal_nan=True
    )
    with pytest.raises(QuantizationError, match="bounds must be finite"):
        scale_and_zero_point(low, high, grid)


def test_clip_is_max_below_its_ceilings() -> None:
    data = batches()
    values = torch.cat(data)
    wide = ClipCalibrator(kind="clip", activation_clip_max=1e6, weight_clip_max=1e6)
    assert ends(data, wide, SYMMETRIC) == ends(data, MAX, SYMMETRIC)
    assert float(values.max()) > 2 > -float(values.min())
    low = ends(data, MAX, SYMMETRIC)[0]
    assert ends(data, ClipCalibrator(kind="clip", activation_clip_max=2.0), SYMMETRIC) == (low, 2.0)
    weight = torch.tensor([[-3.0, 0.5], [0.2, 0.4]])
    per_row = Grid(8, signed=True, symmetric=True, narrow=True, axis=0)
    low_of_rows, high_of_rows = weight_range(weight, ClipCalibrator(kind="clip"), per_row)
    assert low_of_rows.tolist() == pytest.approx([-1.0, 0.2])
    assert high_of_rows.tolist() == pytest.approx([0.5, 0.4])


def test_types_of_values_bind_every_calibrator() -> None:
    data = [torch.linspace(-0.5, 0.75, 1000)]
    grid = Grid(8, signed=False, symmetric=True)
    for calibrator in (
        MAX,
        MseCalibrator(kind="mse"),
        EntropyCalibrator(kind="entropy"),
        ClipCalibrator(kind="clip"),
    ):
        low, high = activation_range(observed(data), calibrator, grid, "softmax")
        assert (float(low), float(high)) == (0.0, 1.0)
        low, high = activation_range(observed(data), calibrator, grid, "relu")
        assert float(low) == 0.0 < float(high) <= 0.75 + width(data)


@pytest.mark.parametrize("grid", [SYMMETRIC, ASYMMETRIC])
@pytest.mark.parametrize("value", [0.7, -0.7])
def test_the_lower_edge_of_one_value_is_a_range(grid: Grid, value: float) -> None:
    """Its bin begins, on the side of zero, before the value itself, so both ends lie at that edge."""
    low, high = ends([torch.full((100,), value)], PercentileCalibrator(kind="percentile", edge="lower"), grid)
    assert low <= high
    assert max(abs(low), abs(high)) == pytest.approx(abs(value), rel=2 / 2048)
