"""Golden-section search on unimodal curves, and for ranges compared with a dense grid of shares."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qexp.config import Calibrator, MseCalibrator
from qexp.quant.calibration.estimators import activation_range, weight_range
from qexp.quant.calibration.golden_section import TOLERANCE, best_share
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.grid import Grid, fake_quantize, scale_and_zero_point

GOLDEN = MseCalibrator(kind="mse", weights="mse", search="golden")
DENSE = MseCalibrator(kind="mse", weights="mse", candidates=1000)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.floats(0.5, 4))
def test_valleys_are_found_side_by_side(bottoms: list[float], power: float) -> None:
    bottom = torch.tensor(bottoms, dtype=torch.float64)
    result = best_share(lambda share: (share - bottom).abs() ** power, bottom)
    assert float((result - bottom).abs().max()) <= TOLERANCE
    assert bool(((result > 0) & (result <= 1)).all())


def test_the_whole_range_stays_where_nothing_is_better() -> None:
    assert best_share(torch.zeros_like, torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]
    two_valleys = lambda share: (1.02 - share) * (share - 0.3).abs()  # noqa: E731
    assert float(two_valleys(best_share(two_valleys, torch.zeros(1)))) <= float(two_valleys(torch.ones(1)))


def squared_error(values: Tensor, ends: tuple[Tensor, Tensor], grid: Grid) -> float:
    """Error of quantizing the values themselves."""
    scale, zero = scale_and_zero_point(*ends, grid)
    return float((fake_quantize(values, scale, zero, grid) - values).double().square().sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", ["normal", "exponential"])
def test_smooth_distributions_are_as_good_as_a_dense_grid(bits: int, symmetric: bool, kind: str) -> None:
    """Within two per cent: of a distribution with one peak, the error has hardly a second valley."""
    generator, grid = torch.Generator().manual_seed(bits), Grid(bits, symmetric, symmetric)
    data = torch.empty(50_000)
    data = data.normal_(generator=generator) if kind == "normal" else data.exponential_(generator=generator)
    statistics = CalibrationStatistics()
    statistics.add("value", data)
    result, dense = (activation_range(statistics["value"], each, grid) for each in (GOLDEN, DENSE))
    assert squared_error(data, result, grid) <= 1.02 * squared_error(data, dense, grid)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("symmetric", [True, False])
def test_never_worse_than_the_full_range(bits: int, symmetric: bool) -> None:
    """But for the bins of a histogram, which two per cent are left for."""
    generator, grid = torch.Generator().manual_seed(0), Grid(bits, symmetric, symmetric)
    for data in (torch.randn(999, generator=generator) ** 5, torch.tensor([-1.0, 0.3, 0.5, 2.0] * 50)):
        statistics = CalibrationStatistics()
        statistics.add("value", data)
        result = activation_range(statistics["value"], GOLDEN, grid)
        full = squared_error(data, (data.min(), data.max()), grid)
        assert squared_error(data, result, grid) <= 1.02 * full + 1e-9


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_rows_of_weights(symmetric: bool, axis: int | None) -> None:
    weight = torch.randn(8, 500, generator=torch.Generator().manual_seed(1))
    grid, one = (Grid(4, symmetric, symmetric, axis=each) for each in (axis, None))
    low, high = weight_range(weight, GOLDEN, grid)
    assert low.dtype == torch.float32 and low.shape == (() if axis is None else (weight.shape[axis],))
    dense = weight_range(weight, DENSE, grid)
    rows = weight.reshape(1, -1) if axis is None else weight.movedim(axis, 0).flatten(1)
    for row, *ends in zip(rows, *(t.reshape(-1) for t in (low, high, *dense)), strict=True):
        result = squared_error(row, (ends[0], ends[1]), one)
        assert result <= squared_error(row, (row.min(), row.max()), one) * (1 + 1e-5)
        if axis != 1:  # a row of eight values has no smooth error
            assert result <= 1.05 * squared_error(row, (ends[2], ends[3]), one)


def test_other_calibrators_search_weights_on_the_grid() -> None:
    weight, grid = torch.randn(4, 50), Grid(4, True, True, axis=0)
    expected = weight_range(weight, MseCalibrator(kind="mse", weights="mse"), grid)
    assert torch.equal(
        torch.stack(weight_range(weight, Calibrator(weights="mse"), grid)), torch.stack(expected)
    )
