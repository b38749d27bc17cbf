"""From statistics, or from a weight itself, to ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qexp.config import (
    AnyCalibrator,
    Calibrator,
    ClipCalibrator,
    EmaCalibrator,
    EntropyCalibrator,
    MaxCalibrator,
    MseCalibrator,
    PercentileCalibrator,
    SqnrCalibrator,
    ValueType,
)
from qexp.quant.calibration.entropy import threshold
from qexp.quant.calibration.golden_section import best_share
from qexp.quant.calibration.histogram import Histogram
from qexp.quant.calibration.mse import histogram_errors, row_errors
from qexp.quant.calibration.sqnr import candidates
from qexp.quant.calibration.statistics import ValueStatistics
from qexp.quant.grid import Grid

Range = tuple[Tensor, Tensor]
"""Lowest and highest value to represent; float64 for activations, float32 for weights."""

LEAST_SQUARES = MseCalibrator(kind="mse")
"""How weight ranges of the least squared error are found where the calibrator is of another kind."""
LEAST_NOISE = SqnrCalibrator(kind="sqnr")
"""The same for those of the least expected noise."""


def activation_range(
    statistics: ValueStatistics, calibrator: AnyCalibrator, grid: Grid, values: ValueType = "act"
) -> Range:
    """Range of an activation; two float64 scalars with ``low <= high``. That of probabilities is fixed."""
    if values == "softmax":
        return _pair(0.0, 1.0)
    low, high = ACTIVATION_RANGES[type(calibrator)](statistics, calibrator, grid)
    return (low.clamp(min=0), high.clamp(min=0)) if values == "relu" else (low, high)


def weight_range(weight: Tensor, calibrator: Calibrator, grid: Grid) -> Range:
    """Range of a weight: scalars, or one entry for each index of the grid's axis."""
    weight = weight.detach()
    rows = weight.reshape(1, -1) if grid.axis is None else weight.movedim(grid.axis, 0).flatten(1)
    low, high = rows.amin(1), rows.amax(1)
    if bool((torch.isfinite(low) & torch.isfinite(high)).all()):  # else the quantizer, which knows its name
        low, high = WEIGHT_RANGES[calibrator.weights](rows, low, high, calibrator, grid)
    if isinstance(calibrator, ClipCalibrator):
        low, high = _below(low, high, calibrator.weight_clip_max)
    return (low[0], high[0]) if grid.axis is None else (low, high)


def _max(statistics: ValueStatistics, calibrator: MaxCalibrator, grid: Grid) -> Range:
    return _pair(min(statistics.lows), max(statistics.highs))


def _clip(statistics: ValueStatistics, calibrator: ClipCalibrator, grid: Grid) -> Range:
    return _below(*_pair(min(statistics.lows), max(statistics.highs)), calibrator.activation_clip_max)


def _below(low: Tensor, high: Tensor, ceiling: float) -> Range:
    return low.clamp(-ceiling, ceiling), high.clamp(-ceiling, ceiling)


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
    histogram, share = statistics.histogram, calibrator.percentile / 100
    if grid.symmetric:
        bound = (1 + _reaching(histogram.magnitudes(), share)) * histogram.width
        return _pair(max(low, -bound), min(high, bound))
    counts, edges, tail = histogram.counts, histogram.edges(), 1 - (1 - share) / 2
    upper = float(edges[1 + _reaching(counts, tail)])
    lower = float(edges[-2 - _reaching(counts.flip(0), tail)])
    return _pair(max(low, lower), min(high, upper))


def _reaching(counts: Tensor, share: float) -> int:
    """First index up to which, itself included, at least that share of the counts lies."""
    total = counts.cumsum(0).to(torch.float64)
    return min(int(torch.searchsorted(total, share * float(total[-1]))), counts.numel() - 1)


def _mse(statistics: ValueStatistics, calibrator: MseCalibrator, grid: Grid) -> Range:
    """Least squared error over the histogram, values taken as even within a bin.

    Symmetric: shares of the range, ``i / candidates`` or by the golden section. Asymmetric: first of the
    upper end, then of the lower end with the upper end found; see ``_golden`` for its own order.
    """
    low, high = _pair(min(statistics.lows), max(statistics.highs))
    if calibrator.search == "golden":
        low, high = _golden(low[None], high[None], grid, partial(histogram_errors, statistics.histogram))
        return low[0], high[0]
    shares = torch.arange(calibrator.candidates, 0, -1, dtype=torch.float64) / calibrator.candidates
    one = torch.ones_like(shares)
    if grid.symmetric:
        best = _best(statistics.histogram, low * shares, high * shares, grid)
        return low * shares[best], high * shares[best]
    low, high = low.clamp(max=0), high.clamp(min=0)
    high = high * shares[_best(statistics.histogram, low * one, high * shares, grid)]
    low = low * shares[_best(statistics.histogram, low * shares, high * one, grid)]
    return low, high


def _golden(low: Tensor, high: Tensor, grid: Grid, errors: Callable[..., Tensor]) -> Range:
    """Shares of ranges [searches], see ``golden``; ``errors`` takes lows, highs and the grid.

    Asymmetric: one for both ends, then one of the upper end, then one of the lower end.
    """
    if grid.symmetric:
        share = best_share(lambda share: errors(low * share, high * share, grid), low)
        return low * share, high * share
    low, high = low.clamp(max=0), high.clamp(min=0)
    both = best_share(lambda share: errors(low * share, high * share, grid), low)
    low, high = low * both, high * both
    high = high * best_share(lambda share: errors(low, high * share, grid), low)
    low = low * best_share(lambda share: errors(low * share, high, grid), low)
    return low, high


def _best(histogram: Histogram, low: Tensor, high: Tensor, grid: Grid) -> int:
    return int(histogram_errors(histogram, low, high, grid).argmin())


def _entropy(statistics: ValueStatistics, calibrator: EntropyCalibrator, grid: Grid) -> Range:
    """Least divergence of the magnitudes, see ``entropy``; clipped there on both sides of zero.

    A magnitude has the levels of one side: ``2 ** (bits - 1)``, but all ``2 ** bits`` where an asymmetric
    or unsigned grid meets no value below zero. Never beyond the values seen.
    """
    low, high = min(statistics.lows), max(statistics.highs)
    one_sided = low >= 0 and not (grid.symmetric and grid.signed)
    levels = 2**grid.bits if one_sided else 2 ** (grid.bits - 1)
    magnitudes, width = _coarser(statistics, calibrator.bins)
    end = threshold(magnitudes, levels, first=calibrator.first, stride=calibrator.stride)
    return _pair(max(low, -end * width), min(high, end * width))


def _coarser(statistics: ValueStatistics, bins: int) -> tuple[Tensor, float]:
    """Counts of the magnitudes and their width, with at most ``bins`` up to the first batch's largest one."""
    histogram = statistics.histogram
    ends = zip(statistics.lows, statistics.highs, strict=True)
    largest = next((max(-low, high) for low, high in ends if low or high), 0.0)
    together = max(1, round(largest / bins / histogram.width)) if histogram.width else 1
    magnitudes = histogram.magnitudes()
    whole = torch.nn.functional.pad(magnitudes, (0, -magnitudes.numel() % together))
    return whole.view(-1, together).sum(1), histogram.width * together


def _sqnr(statistics: ValueStatistics, calibrator: SqnrCalibrator, grid: Grid) -> Range:
    """Least expected noise over the histogram, see ``sqnr``."""
    low, high = candidates(*_pair(min(statistics.lows), max(statistics.highs)), grid, calibrator)
    noise = histogram_errors(statistics.histogram, low, high, grid, clipping=calibrator.gamma)
    best = int(noise.argmin())
    return low[best], high[best]


def _whole_rows(rows: Tensor, low: Tensor, high: Tensor, calibrator: Calibrator, grid: Grid) -> Range:
    return low, high


def _least_squares_rows(rows: Tensor, low: Tensor, high: Tensor, calibrator: Calibrator, grid: Grid) -> Range:
    """Each row's range, of shares of its full one, with the least squared error."""
    settings = calibrator if isinstance(calibrator, MseCalibrator) else LEAST_SQUARES
    if settings.search == "golden":
        found = _golden(low.double(), high.double(), grid, partial(_errors_of_rows, rows))
        return found[0].to(rows.dtype), found[1].to(rows.dtype)
    shares = torch.arange(settings.candidates, 0, -1, dtype=rows.dtype, device=rows.device)
    shares /= settings.candidates
    best = row_errors(rows, low[:, None] * shares, high[:, None] * shares, grid).argmin(1)
    return low * shares[best], high * shares[best]


def _errors_of_rows(rows: Tensor, low: Tensor, high: Tensor, grid: Grid) -> Tensor:
    return row_errors(rows, low[:, None], high[:, None], grid)[:, 0]


def _least_noise_rows(rows: Tensor, low: Tensor, high: Tensor, calibrator: Calibrator, grid: Grid) -> Range:
    """Each row's range with the least expected noise, see ``sqnr``."""
    settings = calibrator if isinstance(calibrator, SqnrCalibrator) else LEAST_NOISE
    lows, highs = candidates(low, high, grid, settings)
    best = row_errors(rows, lows, highs, grid, clipping=settings.gamma).argmin(1, keepdim=True)
    return lows.gather(1, best)[:, 0].to(rows.dtype), highs.gather(1, best)[:, 0].to(rows.dtype)


def _pair(low: float, high: float) -> Range:
    return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


ACTIVATION_RANGES: Mapping[type[Calibrator], Callable[[ValueStatistics, Any, Grid], Range]] = {
    MaxCalibrator: _max,
    EmaCalibrator: _ema,
    PercentileCalibrator: _percentile,
    MseCalibrator: _mse,
    EntropyCalibrator: _entropy,
    SqnrCalibrator: _sqnr,
    ClipCalibrator: _clip,
}

WEIGHT_RANGES: Mapping[str, Callable[[Tensor, Tensor, Tensor, Calibrator, Grid], Range]] = {
    "max": _whole_rows,
    "mse": _least_squares_rows,
    "sqnr": _least_noise_rows,
}
"""By ``calibrator.weights``: from rows and the ends of each to ranges."""
