"""Squared errors of candidate ranges compared with sums over the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qexp.quant.calibration import mse
from qexp.quant.calibration.histogram import Histogram
from qexp.quant.calibration.mse import histogram_errors, row_errors
from qexp.quant.grid import Grid, fake_quantize, scale_and_zero_point
from tests.support.histograms import FINE, random_histogram


def spread(histogram: Histogram, low: float, high: float, grid: Grid) -> float:
    """Error by quantizing points that are spread over each bin, in float64."""
    scale, zero = (float(t) for t in scale_and_zero_point(torch.tensor(low), torch.tensor(high), grid))
    bins = np.arange(-histogram.half, histogram.half)[:, None]
    points = (bins + (np.arange(FINE) + 0.5) / FINE) * histogram.width
    quantized = np.clip(np.round(points / scale) + zero, grid.qmin, grid.qmax) - zero
    return float((((quantized * scale - points) ** 2).mean(1) * histogram.counts.numpy()).sum())


grids = st.builds(
    lambda bits, symmetric: Grid(bits, signed=symmetric, symmetric=symmetric),
    st.integers(2, 7),
    st.booleans(),
)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), grids, st.floats(0.01, 1.2), st.floats(0.01, 1.2))
def test_both_forms_are_the_error_of_values_spread_over_the_bins(
    seed: int, grid: Grid, below: float, above: float
) -> None:
    histogram = random_histogram(seed)
    end = histogram.half * histogram.width
    low, high = torch.tensor([-below * end]).double(), torch.tensor([above * end]).double()
    scale, zero = scale_and_zero_point(low, high, grid)
    operands = (scale.double() / histogram.width, grid.qmin - zero, grid.qmax - zero)
    by_levels = float(mse._by_levels(histogram, *operands)) * histogram.width**2
    by_bins = float(mse._by_bins(histogram, *operands)) * histogram.width**2
    assert by_levels == pytest.approx(by_bins, rel=1e-9)
    assert by_levels == pytest.approx(spread(histogram, float(low), float(high), grid), rel=0.01)


@pytest.mark.parametrize("bits", [2, 8, 12, 16])
@pytest.mark.parametrize("symmetric", [True, False])
def test_both_forms_agree_on_wide_grids_and_many_bins(
    bits: int, symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mse, "BLOCK", 5000)  # candidates fall into parts
    histogram = random_histogram(1, half=3000)
    grid = Grid(bits, signed=symmetric, symmetric=symmetric)
    share = torch.linspace(0.05, 1, 7, dtype=torch.float64)
    low, high = -share * 900, share * 1100
    scale, zero = scale_and_zero_point(low, high, grid)
    operands = (scale.double() / histogram.width, grid.qmin - zero, grid.qmax - zero)
    by_levels = mse._by_levels(histogram, *operands)
    torch.testing.assert_close(by_levels, mse._by_bins(histogram, *operands), rtol=1e-6, atol=0)
    chosen = histogram_errors(histogram, low, high, grid)
    torch.testing.assert_close(chosen, by_levels * histogram.width**2, rtol=1e-6, atol=0)


def test_a_histogram_of_zeros_has_no_error() -> None:
    ends = torch.zeros(3, dtype=torch.float64)
    assert histogram_errors(Histogram(), ends, ends, Grid(8, signed=True, symmetric=True)).tolist() == [
        0,
        0,
        0,
    ]


def ranges(rows: Tensor, candidates: int) -> tuple[Tensor, Tensor]:
    """Shares of each row's range."""
    shares = torch.arange(candidates, 0, -1) / candidates
    return rows.amin(1)[:, None] * shares, rows.amax(1)[:, None] * shares


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("shape", [(5, 30), (3, 2500), (1, 9)])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("symmetric", [True, False])
def test_errors_of_rows_are_those_of_their_values(
    native: bool, shape: tuple[int, int], bits: int, symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(mse, "_kernel", lambda: None)
        monkeypatch.setattr(mse, "BLOCK", 20)  # rows and columns both fall into blocks
    elif mse._kernel() is None:
        pytest.skip("no C compiler on this machine: only the way in torch can be tested")
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(2)).exp() - 0.7
    grid = Grid(bits, signed=symmetric, symmetric=symmetric)
    low, high = ranges(rows, candidates=23)
    errors = row_errors(rows, low, high, grid)
    scale, zero = scale_and_zero_point(low, high, grid)
    for row in range(shape[0]):
        for k in range(23):
            difference = fake_quantize(rows[row], scale[row, k], zero[row, k], grid) - rows[row]
            expected = float(difference.double().square().sum())
            assert float(errors[row, k]) == pytest.approx(expected, rel=2e-6, abs=1e-30)


def test_errors_of_rows_do_not_depend_on_layout_or_threads() -> None:
    rows = torch.randn(2000, 7)
    grid = Grid(4, signed=True, symmetric=True)
    columns = rows.T
    low, high = ranges(columns, candidates=31)
    expected, before = row_errors(columns.contiguous(), low, high, grid), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(row_errors(columns, low, high, grid), expected)
    finally:
        torch.set_num_threads(before)
