"""From statistics, or from a weight itself, to ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from qexp.config import (
    AnyCalibrator,
    Calibrator,
    EmaCalibrator,
    MaxCalibrator,
    MseCalibrator,
    PercentileCalibrator,
)
from qexp.quant.grid import Grid, quantize_dequantize, scale_and_zero_point
from qexp.quant.histogram import Histogram
from qexp.quant.statistics import ValueStatistics

Range = tuple[Tensor, Tensor]
"""Lowest and highest value to represent; float64 for activations, float32 for weights."""

WEIGHT_CANDIDATES = 100
"""Candidates of a least-squares weight range where the calibrator has no number of its own."""
BLOCK = 1 << 18
"""Elements worked on at a time: small enough for the cache."""


def activation_range(statistics: ValueStatistics, calibrator: AnyCalibrator, grid: Grid) -> Range:
    """Range of an activation; two float64 scalars with ``low <= high``."""
    return ACTIVATION_RANGES[type(calibrator)](statistics, calibrator, grid)


def weight_range(weight: Tensor, calibrator: Calibrator, grid: Grid) -> Range:
    """Range of a weight: scalars, or one entry for each index of the grid's axis."""
    weight = weight.detach()
    rows = weight.reshape(1, -1) if grid.axis is None else weight.movedim(grid.axis, 0).flatten(1)
    if calibrator.weights == "mse":
        candidates = getattr(calibrator, "candidates", WEIGHT_CANDIDATES)
        low, high = _least_squares_rows(rows, grid, candidates)
    else:
        low, high = rows.amin(1), rows.amax(1)
    return (low[0], high[0]) if grid.axis is None else (low, high)


def _max(statistics: ValueStatistics, calibrator: MaxCalibrator, grid: Grid) -> Range:
    return _pair(min(statistics.lows), max(statistics.highs))


def _ema(statistics: ValueStatistics, calibrator: EmaCalibrator, grid: Grid) -> Range:
    """Starts at the first batch: ``e = decay * e + (1 - decay) * batch`` (Jacob et al. 2018, section 3.1)."""
    ends = []
    for series in (statistics.lows, statistics.highs):
        average = series[0]
        for value in series[1:]:
            average = calibrator.decay * average + (1 - calibrator.decay) * value
        ends.append(average)
    return _pair(*ends)


def _percentile(statistics: ValueStatistics, calibrator: PercentileCalibrator, grid: Grid) -> Range:
    """Symmetric: the percentile of the magnitudes. Asymmetric: half of the rest is cut on each side.

    Right within one bin of the histogram, never beyond the values seen.
    """
    low, high = min(statistics.lows), max(statistics.highs)
    counts, edges = statistics.histogram.counts, statistics.histogram.edges()
    half, share = counts.numel() // 2, calibrator.percentile / 100
    if grid.symmetric:
        magnitudes = counts[half:] + counts[:half].flip(0)
        bound = float(edges[half + 1 + _reaching(magnitudes, share)])
        return _pair(max(low, -bound), min(high, bound))
    tail = 1 - (1 - share) / 2
    upper = float(edges[1 + _reaching(counts, tail)])
    lower = float(edges[-2 - _reaching(counts.flip(0), tail)])
    return _pair(max(low, lower), min(high, upper))


def _reaching(counts: Tensor, share: float) -> int:
    """First index up to which, itself included, at least that share of the counts lies."""
    total = counts.cumsum(0).to(torch.float64)
    return min(int(torch.searchsorted(total, share * float(total[-1]))), counts.numel() - 1)


def _mse(statistics: ValueStatistics, calibrator: MseCalibrator, grid: Grid) -> Range:
    """Least squared error over the histogram, values taken as even within a bin.

    Symmetric: shares ``i / candidates`` of the range. Asymmetric: first of the upper end, then of
    the lower end with the upper end found.
    """
    low, high = _pair(min(statistics.lows), max(statistics.highs))
    shares = torch.arange(calibrator.candidates, 0, -1, dtype=torch.float64) / calibrator.candidates
    one = torch.ones_like(shares)
    if grid.symmetric:
        best = _best(statistics.histogram, low * shares, high * shares, grid)
        return low * shares[best], high * shares[best]
    low, high = low.clamp(max=0), high.clamp(min=0)
    high = high * shares[_best(statistics.histogram, low * one, high * shares, grid)]
    low = low * shares[_best(statistics.histogram, low * shares, high * one, grid)]
    return low, high


def _best(histogram: Histogram, low: Tensor, high: Tensor, grid: Grid) -> int:
    seen = histogram.counts > 0
    edges = histogram.edges()
    begin, end, counts = edges[:-1][seen], edges[1:][seen], histogram.counts[seen].to(torch.float64)
    if histogram.width == 0:
        return 0
    scale, zero = scale_and_zero_point(low, high, grid)
    scale, lower, upper = (t.double()[:, None] for t in (scale, grid.qmin - zero, grid.qmax - zero))
    errors = []
    for chunk in torch.arange(low.numel()).split(max(1, BLOCK // max(1, counts.numel()))):
        s, first, last = scale[chunk], lower[chunk], upper[chunk]
        whole = _potential(end / s, first, last) - _potential(begin / s, first, last)
        errors.append((whole * s**3) @ counts)  # the common factor 1 / width changes no minimum
    return int(torch.cat(errors).argmin())


def _potential(v: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Integral of the squared error ``(v - clamp(round(v), lower, upper))²`` from 0 to ``v``, in steps.

    A whole step adds 1/12, the rest of a step and what lies beyond the ends adds a cubic.
    """
    inside = torch.minimum(torch.maximum(v, lower), upper)
    nearest = torch.floor(inside + 0.5)
    return nearest / 12 + (inside - nearest) ** 3 / 3 + (v - inside) ** 3 / 3


def _least_squares_rows(rows: Tensor, grid: Grid, candidates: int) -> Range:
    """Each row's range, of shares ``i / candidates`` of its full one, with the least squared error."""
    low, high = rows.amin(1), rows.amax(1)
    shares = torch.arange(candidates, 0, -1, dtype=rows.dtype, device=rows.device) / candidates
    best = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    block = max(1, BLOCK // rows.shape[1])
    for part in torch.arange(len(rows), device=rows.device).split(block):
        best[part] = _row_errors(rows[part], low[part], high[part], shares, grid).argmin(1)
    return low * shares[best], high * shares[best]


def _row_errors(rows: Tensor, low: Tensor, high: Tensor, shares: Tensor, grid: Grid) -> Tensor:
    """Squared error of each row (first axis) with each share of its range (second axis), float64."""
    errors = torch.zeros(len(rows), len(shares), dtype=torch.float64, device=rows.device)
    for index, share in enumerate(shares):
        scale, zero = (t[:, None] for t in scale_and_zero_point(low * share, high * share, grid))
        lower, upper = (grid.qmin - zero).to(rows.dtype), (grid.qmax - zero).to(rows.dtype)
        for columns in rows.split(BLOCK, dim=1):
            difference = quantize_dequantize(columns, scale, lower, upper).sub_(columns)
            errors[:, index] += difference.square_().sum(1)
    return errors


def _pair(low: float, high: float) -> Range:
    return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


ACTIVATION_RANGES: Mapping[type[Calibrator], Callable[[ValueStatistics, Any, Grid], Range]] = {
    MaxCalibrator: _max,
    EmaCalibrator: _ema,
    PercentileCalibrator: _percentile,
    MseCalibrator: _mse,
}
