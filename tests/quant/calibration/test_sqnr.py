"""Ranges of least expected noise compared with a numpy derivation, for each candidate.

The derivation follows AIMET's definition in float64, on the values themselves. Tolerances: a histogram
assumes uniform values within a bin, so another candidate may be selected if their noise differs by one per
cent or less.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qexp.config import Calibrator, SqnrCalibrator
from qexp.quant.calibration import mse
from qexp.quant.calibration.estimators import activation_range, weight_range
from qexp.quant.calibration.mse import histogram_errors, row_errors
from qexp.quant.calibration.sqnr import candidates
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.grid import Grid, fake_quantize, scale_and_zero_point
from tests.support.histograms import FINE, random_histogram

SYMMETRIC = Grid(4, signed=True, symmetric=True)
ASYMMETRIC = Grid(4, signed=False, symmetric=False)
GRIDS = [SYMMETRIC, ASYMMETRIC, Grid(8, signed=True, symmetric=True), Grid(8, signed=False, symmetric=False)]
SQNR = SqnrCalibrator(kind="sqnr")

Pair = tuple[float, int]
"""A scale, and how many steps the lowest integer lies from zero."""


def pairs(low: float, high: float, grid: Grid) -> list[Pair]:
    """AIMET's candidates, in its order."""
    low, high, steps = min(low, 0.0), max(high, 0.0), grid.qmax - grid.qmin
    if grid.symmetric:
        return [(max(high, -low) / grid.qmax * i / 100, grid.qmin) for i in range(1, 102)]
    widest = (high - low) / steps
    observed = round(low / widest)
    number = min(steps + 2, 21)
    offsets = [round(-steps + k * steps / (number - 2)) for k in range(number - 1)]
    result = []
    for scale in (widest * i / 16 for i in range(1, 18)):
        for offset in (*offsets, observed):
            first = max(scale * offset, widest * observed)
            last = min(scale * (offset + steps), widest * (observed + steps))
            if first < last:
                result.append(((last - first) / steps, round(first / ((last - first) / steps))))
    return result


def noise(values: np.ndarray, pair: Pair, grid: Grid, gamma: float) -> float:  # type: ignore[type-arg]
    """Squared error of values, with that of clipped ones ``gamma`` times."""
    (scale, first), steps = pair, grid.qmax - grid.qmin
    level = np.round(values / scale) - first
    error = (np.clip(level, 0, steps) + first) * scale - values
    return float((error**2 * np.where((level < 0) | (level > steps), gamma, 1.0)).sum())


def pair_of(low: Tensor, high: Tensor, grid: Grid) -> Pair:
    """The candidate that a range is."""
    scale, zero = scale_and_zero_point(low, high, grid)
    return float(scale), grid.qmin - int(zero)


def values(seed: int, count: int = 20_000) -> Tensor:
    """A skewed distribution with a long tail."""
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)).exp() - 0.8


@pytest.mark.parametrize("grid", GRIDS)
def test_candidates_are_aimets(grid: Grid) -> None:
    low, high = candidates(*torch.tensor([-0.8, 31.0]).double(), grid, SQNR)
    result = {pair_of(*ends, grid) for ends in zip(low, high, strict=True)}
    expected = {(float(np.float32(scale)), first) for scale, first in pairs(-0.8, 31.0, grid)}
    assert len(low) == (101 if grid.symmetric else 17 * min(21, grid.qmax - grid.qmin + 2))
    assert len(result) == len(expected)
    scales, firsts = np.array(sorted(result)).T - np.array(sorted(expected)).T
    assert np.abs(scales / [scale for scale, _ in sorted(expected)]).max() < 1e-6
    assert np.abs(firsts).max() <= 1 and np.count_nonzero(firsts) <= 0.01 * len(firsts)  # halves, rounded


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("gamma", [1.0, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_range_has_the_least_noise(grid: Grid, gamma: float, seed: int) -> None:
    data = values(seed)
    statistics = CalibrationStatistics()
    statistics.add("value", data)
    calibrator = SqnrCalibrator(kind="sqnr", gamma=gamma)
    chosen = pair_of(*activation_range(statistics["value"], calibrator, grid), grid)
    exact = data.double().numpy()
    noises = {pair: noise(exact, pair, grid, gamma) for pair in pairs(exact.min(), exact.max(), grid)}
    assert noise(exact, chosen, grid, gamma) <= 1.01 * min(noises.values())
    assert min(abs(chosen[0] / scale - 1) + abs(chosen[1] - first) for scale, first in noises) < 1e-6
    full = max(noises) if grid.symmetric else pair_of(data.min(), data.max(), grid)
    gain = 0.9 if grid.bits == 4 else 1.01
    assert noise(exact, chosen, grid, gamma) <= gain * noise(exact, full, grid, gamma)


def test_more_weight_on_clipping_clips_less() -> None:
    statistics = CalibrationStatistics()
    statistics.add("value", values(0))
    ends = [
        float(activation_range(statistics["value"], SqnrCalibrator(kind="sqnr", gamma=gamma), SYMMETRIC)[1])
        for gamma in (1.0, 3.0, 30.0, 1000.0)
    ]
    assert ends == sorted(ends) and ends[0] < 0.7 * ends[-1]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.booleans(), st.floats(0.01, 1.2), st.floats(0.01, 1.2))
def test_noise_of_a_histogram_is_that_of_values_spread_over_the_bins(
    seed: int, symmetric: bool, below: float, above: float
) -> None:
    grid = SYMMETRIC if symmetric else ASYMMETRIC
    histogram = random_histogram(seed)
    end = histogram.half * histogram.width
    low, high = torch.tensor([-below * end]).double(), torch.tensor([above * end]).double()
    bins = np.arange(-histogram.half, histogram.half)[:, None]
    points = (bins + (np.arange(FINE) + 0.5) / FINE) * histogram.width
    pair = pair_of(low[0], high[0], grid)
    expected = sum(
        noise(row, pair, grid, 3.0) / FINE * count
        for row, count in zip(points, histogram.counts.tolist(), strict=True)
    )
    result = float(histogram_errors(histogram, low, high, grid, clipping=3.0))
    assert result == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("grid", [SYMMETRIC, ASYMMETRIC])
def test_noise_of_rows_is_that_of_their_values(
    native: bool, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(mse, "_kernel", lambda: None)
        monkeypatch.setattr(mse, "BLOCK", 20)  # rows and columns both fall into blocks
    elif mse._kernel() is None:
        pytest.skip("no C compiler on this machine: only the way in torch can be tested")
    rows = values(3, 4 * 50).view(4, 50)
    low, high = candidates(rows.amin(1), rows.amax(1), grid, SQNR)
    result = row_errors(rows, low, high, grid, clipping=3.0)
    scale, zero = scale_and_zero_point(low, high, grid)
    for row in range(4):
        for k in range(0, low.shape[1], 7):
            quantized = fake_quantize(rows[row], scale[row, k], zero[row, k], grid)
            level = torch.round(rows[row] / scale[row, k]) + zero[row, k]
            weight = torch.where((level < grid.qmin) | (level > grid.qmax), 3.0, 1.0)
            expected = float(((quantized - rows[row]).double().square() * weight).sum())
            assert float(result[row, k]) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("grid", [SYMMETRIC, ASYMMETRIC])
@pytest.mark.parametrize("axis", [None, 0])
def test_weights_have_the_least_noise_of_each_row(grid: Grid, axis: int | None) -> None:
    weight = values(5, 6 * 40).view(6, 40)
    each = Grid(grid.bits, grid.signed, grid.symmetric, axis=axis)
    low, high = weight_range(weight, Calibrator(weights="sqnr"), each)
    assert low.shape == (() if axis is None else (6,))
    rows = (weight if axis == 0 else weight.reshape(1, -1)).double().numpy()
    for row, *ends in zip(rows, low.reshape(-1), high.reshape(-1), strict=True):
        least = min(noise(row, pair, grid, 3.0) for pair in pairs(row.min(), row.max(), grid))
        assert noise(row, pair_of(*ends, grid), grid, 3.0) <= least * (1 + 1e-5)


@pytest.mark.parametrize("grid", [SYMMETRIC, ASYMMETRIC])
def test_zeros_have_an_empty_range(grid: Grid) -> None:
    statistics = CalibrationStatistics()
    statistics.add("value", torch.zeros(5))
    assert activation_range(statistics["value"], SQNR, grid) == (0.0, 0.0)
    low, high = weight_range(torch.zeros(2, 3), Calibrator(weights="sqnr"), Grid(4, True, True, axis=0))
    assert low.tolist() == high.tolist() == [0.0, 0.0]
