"""Estimation of ranges from calibration statistics, and from weights."""

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
    ImportedCalibrator,
    MaxCalibrator,
    MseCalibrator,
    PercentileCalibrator,
    SqnrCalibrator,
    ValueType,
)
from qexp.errors import QuantizationError
from qexp.quant.calibration.entropy import threshold
from qexp.quant.calibration.golden_section import best_share
from qexp.quant.calibration.histogram import Histogram
from qexp.quant.calibration.mse import histogram_errors, row_errors
from qexp.quant.calibration.sqnr import candidates
from qexp.quant.calibration.statistics import ValueStatistics
from qexp.quant.float_grid import BlockGrid
from qexp.quant.grid import AnyGrid, Grid

Range = tuple[Tensor, Tensor]
"""Lowest and highest value to represent; float64 for activations, float32 for weights."""

LEAST_SQUARES = MseCalibrator(kind="mse")
"""Settings for weight ranges of least squared error if the calibrator is of another kind."""
LEAST_NOISE = SqnrCalibrator(kind="sqnr")
"""Settings for weight ranges of least expected noise if the calibrator is of another kind."""


def activation_range(
    statistics: ValueStatistics, calibrator: AnyCalibrator, grid: AnyGrid, values: ValueType = "act"
) -> Range:
    """Return the range of an activation, two float64 scalars with ``low <= high``.

    The range of probabilities is fixed to [0, 1].
    """
    if values == "softmax":
        return _pair(0.0, 1.0)
    low, high = ACTIVATION_RANGES[type(calibrator)](statistics, calibrator, grid)
    return (low.clamp(min=0), high.clamp(min=0)) if values == "relu" else (low, high)


def weight_range(weight: Tensor, calibrator: Calibrator, grid: AnyGrid) -> Range:
    """Return the range of a weight: scalars, or one entry for each index of the grid's axis."""
    weight = grid.in_blocks(weight.detach())
    rows = weight.reshape(1, -1) if grid.axis is None else weight.movedim(grid.axis, 0).flatten(1)
    low, high = rows.amin(1), rows.amax(1)
    if bool((torch.isfinite(low) & torch.isfinite(high)).all()):  # else the quantizer raises, with its name
        low, high = WEIGHT_RANGES[calibrator.weights](rows, low, high, calibrator=calibrator, grid=grid)
    if isinstance(calibrator, ClipCalibrator):
        low, high = _below(low, high, calibrator.weight_clip_max)
    return (low[0], high[0]) if grid.axis is None else (low, high)


def _max(statistics: ValueStatistics, calibrator: MaxCalibrator, grid: AnyGrid) -> Range:
    return _pair(min(statistics.lows), max(statistics.highs))


def _clip(statistics: ValueStatistics, calibrator: ClipCalibrator, grid: AnyGrid) -> Range:
    return _below(*_pair(min(statistics.lows), max(statistics.highs)), calibrator.activation_clip_max)


def _below(low: Tensor, high: Tensor, ceiling: float) -> Range:
    return low.clamp(-ceiling, ceiling), high.clamp(-ceiling, ceiling)


def _ema(statistics: ValueStatistics, calibrator: EmaCalibrator, grid: AnyGrid) -> Range:
    """Return moving averages of the ends, or of the largest magnitude, that start at the first batch.

    ``e = decay * e + (1 - decay) * batch`` (Jacob et al. 2018, section 3.1).
    """
    ends, both = [], (statistics.lows, statistics.highs)
    if calibrator.statistic == "magnitude":
        largest = [max(-low, high) for low, high in zip(*both, strict=True)]
        both = ([-each for each in largest], largest)
    for series in both:
        average = series[0]
        for value in series[1:]:
            average = calibrator.decay * average + (1 - calibrator.decay) * value
        ends.append(average)
    return _pair(*ends)


def _percentile(statistics: ValueStatistics, calibrator: PercentileCalibrator, grid: AnyGrid) -> Range:
    """Return the percentile of the magnitudes or, if asymmetric, cut half of the remainder on each side.

    The result is an edge of the bin that reaches the share, and never beyond the observed values.
    """
    low, high = min(statistics.lows), max(statistics.highs)
    histogram, share = statistics.histogram, calibrator.percentile / 100
    upper_edge = int(calibrator.edge == "upper")
    if grid.symmetric:
        bound = (upper_edge + _reaching(histogram.magnitudes(), share)) * histogram.width
        return _clipped(low, high, -bound, bound)
    counts, edges, tail = histogram.counts, histogram.edges(), 1 - (1 - share) / 2
    upper = float(edges[upper_edge + _reaching(counts, tail)])
    lower = float(edges[-1 - upper_edge - _reaching(counts.flip(0), tail)])
    return _clipped(low, high, lower, upper)


def _clipped(low: float, high: float, lower: float, upper: float) -> Range:
    """Return the observed range within bounds; one that lies beyond a bound becomes that bound."""
    high = min(max(high, lower), upper)
    return _pair(min(max(low, lower), high), high)


def _reaching(counts: Tensor, share: float) -> int:
    """Return the first index up to which, inclusive, at least ``share`` of the counts lies."""
    total = counts.cumsum(0).to(torch.float64)
    return min(int(torch.searchsorted(total, share * float(total[-1]))), counts.numel() - 1)


def _mse(statistics: ValueStatistics, calibrator: MseCalibrator, grid: AnyGrid) -> Range:
    """Return the range of least squared error over the histogram, with values uniform within a bin.

    A symmetric range is searched over shares of the full range, ``i / candidates`` or by golden section. An
    asymmetric one is searched over shares of the upper end, then over shares of the lower end with that upper
    end. ``_golden`` has an order of its own.
    """
    _not_in_blocks(grid, calibrator)
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


def _golden(low: Tensor, high: Tensor, grid: AnyGrid, errors: Callable[..., Tensor]) -> Range:
    """Search shares of ranges [searches], see ``golden_section``; ``errors`` takes lows, highs and the grid.

    An asymmetric range is scaled at both ends, then at the upper end, then at the lower end.
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


def _best(histogram: Histogram, low: Tensor, high: Tensor, grid: AnyGrid) -> int:
    return int(histogram_errors(histogram, low, high, grid).argmin())


def _entropy(statistics: ValueStatistics, calibrator: EntropyCalibrator, grid: AnyGrid) -> Range:
    """Clip both sides of zero at the magnitude of least divergence, see ``entropy``.

    A magnitude has the levels of one side, ``2 ** (bits - 1)``, or all ``2 ** bits`` if the grid is
    asymmetric or unsigned and no value is below zero. The range never extends beyond the observed values.
    """
    low, high = min(statistics.lows), max(statistics.highs)
    grid = _integer(grid, calibrator)
    one_sided = low >= 0 and not (grid.symmetric and grid.signed)
    levels = 2**grid.bits if one_sided else 2 ** (grid.bits - 1)
    magnitudes, width = _coarser(statistics, calibrator.bins)
    end = threshold(magnitudes, levels, first=calibrator.first, stride=calibrator.stride)
    return _pair(max(low, -end * width), min(high, end * width))


def _coarser(statistics: ValueStatistics, bins: int) -> tuple[Tensor, float]:
    """Return the counts of the magnitudes and the bin width, merged to about ``bins`` for the first batch.

    These bins reach up to the largest magnitude of the first batch that has values other than zero.
    """
    histogram = statistics.histogram
    ends = zip(statistics.lows, statistics.highs, strict=True)
    largest = next((max(-low, high) for low, high in ends if low or high), 0.0)
    together = max(1, round(largest / bins / histogram.width)) if histogram.width else 1
    magnitudes = histogram.magnitudes()
    whole = torch.nn.functional.pad(magnitudes, (0, -magnitudes.numel() % together))
    return whole.view(-1, together).sum(1), histogram.width * together


def _sqnr(statistics: ValueStatistics, calibrator: SqnrCalibrator, grid: AnyGrid) -> Range:
    """Return the range of least expected noise over the histogram, see ``sqnr``."""
    low, high = candidates(
        *_pair(min(statistics.lows), max(statistics.highs)), _integer(grid, calibrator), calibrator
    )
    noise = histogram_errors(statistics.histogram, low, high, grid, clipping=calibrator.gamma)
    best = int(noise.argmin())
    return low[best], high[best]


def _integer(grid: AnyGrid, calibrator: Calibrator) -> Grid:
    if not isinstance(grid, Grid):
        raise QuantizationError(_unfit(grid.name, calibrator))
    return grid


def _not_in_blocks(grid: AnyGrid, calibrator: Calibrator) -> None:
    if isinstance(grid, BlockGrid):
        raise QuantizationError(_unfit(grid.name, calibrator))


def _unfit(number_format: str, calibrator: Calibrator) -> str:
    kind = getattr(calibrator, "kind", calibrator.weights)
    return f"calibrator={kind}: it searches ranges that {number_format} has not; use calibrator=max"


def _whole_rows(rows: Tensor, low: Tensor, high: Tensor, calibrator: Calibrator, grid: AnyGrid) -> Range:
    return low, high


def _least_squares_rows(
    rows: Tensor, low: Tensor, high: Tensor, calibrator: Calibrator, grid: AnyGrid
) -> Range:
    """Return the range of each row with the least squared error, among shares of its full range."""
    settings = calibrator if isinstance(calibrator, MseCalibrator) else LEAST_SQUARES
    _not_in_blocks(grid, settings)
    if settings.search == "golden":
        ends = _golden(low.double(), high.double(), grid, partial(_errors_of_rows, rows))
        return ends[0].to(rows.dtype), ends[1].to(rows.dtype)
    shares = torch.arange(settings.candidates, 0, -1, dtype=rows.dtype, device=rows.device)
    shares /= settings.candidates
    best = row_errors(rows, low[:, None] * shares, high[:, None] * shares, grid).argmin(1)
    return low * shares[best], high * shares[best]


def _errors_of_rows(rows: Tensor, low: Tensor, high: Tensor, grid: AnyGrid) -> Tensor:
    return row_errors(rows, low[:, None], high[:, None], grid)[:, 0]


def _least_noise_rows(
    rows: Tensor, low: Tensor, high: Tensor, calibrator: Calibrator, grid: AnyGrid
) -> Range:
    """Return the range of each row with the least expected noise, see ``sqnr``."""
    settings = calibrator if isinstance(calibrator, SqnrCalibrator) else LEAST_NOISE
    lows, highs = candidates(low, high, _integer(grid, settings), settings)
    best = row_errors(rows, lows, highs, grid, clipping=settings.gamma).argmin(1, keepdim=True)
    return lows.gather(1, best)[:, 0].to(rows.dtype), highs.gather(1, best)[:, 0].to(rows.dtype)


def _pair(low: float, high: float) -> Range:
    return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


ACTIVATION_RANGES: Mapping[type[Calibrator], Callable[[ValueStatistics, Any, AnyGrid], Range]] = {
    MaxCalibrator: _max,
    EmaCalibrator: _ema,
    PercentileCalibrator: _percentile,
    MseCalibrator: _mse,
    EntropyCalibrator: _entropy,
    SqnrCalibrator: _sqnr,
    ImportedCalibrator: _max,  # for what is then not imported
    ClipCalibrator: _clip,
}

WEIGHT_RANGES: Mapping[str, Callable[..., Range]] = {
    "max": _whole_rows,
    "mse": _least_squares_rows,
    "sqnr": _least_noise_rows,
}
"""Functions from rows, with their minimum and maximum, and by keyword ``calibrator`` and ``grid``, to ranges;
by ``calibrator.weights``."""
