"""Squared quantization error of candidate ranges, over a histogram or over the rows of a weight.

Values are assumed to be uniform within a bin of the histogram. Two closed forms give the same error; which
one is cheaper depends on whether the grid has more levels or the histogram more bins:

- By levels. If all values were rounded to 0, the error would be their sum of squares. Moving the values above
  ``t = (q + 1/2) * scale`` from level ``q`` to ``q + 1`` lowers it by ``2 * scale * R(t)``, where ``R(t)``
  sums ``x - t`` over all ``x > t``. ``R`` at a bin edge is a sum that is computed once; within a bin it is a
  parabola. So a candidate costs one look-up per level.
- By bins. The integral of the error over a bin is a difference of ``_potential`` at its edges.

Levels of a grid of floats are not equally far apart. There, the values of a bin count as its middle.

Clipping errors can have another weight than rounding errors. A value is clipped if it would round to a level
outside the grid, that is, if it lies half a step or more beyond its ends.
"""

from __future__ import annotations

from ctypes import c_float, c_int, c_int64, c_void_p
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from qexp.quant.calibration.histogram import Histogram
from qexp.quant.element_formats import ElementFormat
from qexp.quant.float_grid import FloatGrid
from qexp.quant.grid import AnyGrid, divide, quantize_dequantize, scale_and_zero_point
from qexp.quant.kernels import native

BLOCK = 1 << 18
"""Number of elements processed at a time, small enough for the cache."""


def histogram_errors(
    histogram: Histogram, low: Tensor, high: Tensor, grid: AnyGrid, *, clipping: float = 1.0
) -> Tensor:
    """Return the sum of squared errors of each range [candidates], float64.

    ``clipping`` is the weight of clipped values. Floating-point rounding adds about 1e-16 of the values' sum
    of squares, so the smallest errors of wide grids, about 1e-9 of that sum with 16 bits, have a relative
    error of about 1e-6.
    """
    if histogram.width == 0:
        return torch.zeros_like(low)
    scale, zero = scale_and_zero_point(low, high, grid)
    if isinstance(grid, FloatGrid):
        return _of_middles(histogram, scale, grid.element)
    steps, lower, upper = scale.double() / histogram.width, grid.qmin - zero, grid.qmax - zero
    edges = histogram.counts.diff(prepend=torch.zeros(1), append=torch.zeros(1)).count_nonzero()
    by = _by_levels if grid.qmax - grid.qmin < int(edges) else _by_bins
    errors = by(histogram, steps, lower, upper)
    if clipping != 1:
        errors += (clipping - 1) * _clipped(histogram, steps, lower, upper)
    return errors * histogram.width**2


def _of_middles(histogram: Histogram, scale: Tensor, element: ElementFormat) -> Tensor:
    """Compute the error of floats, of values in the middles of their bins."""
    middles = histogram.edges()[:-1].float() + histogram.width / 2
    rounded = element.round(middles / scale[:, None]) * scale[:, None]
    return (rounded - middles).double().square_() @ histogram.counts.double()


def _by_levels(histogram: Histogram, scale: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Compute the error by levels; ``scale`` is in bins."""
    half, counts = histogram.half, histogram.counts.double()
    place = torch.arange(-half, half, dtype=torch.float64)
    squares = (counts * (place * (place + 1) + 1 / 3)).sum()
    gain = _gain(counts[half:], scale, upper) + _gain(counts[:half].flip(0), scale, -lower)
    return squares - 2 * scale * gain


def _gain(counts: Tensor, scale: Tensor, levels: Tensor) -> Tensor:
    """Sum ``R`` over the first ``levels`` thresholds on one side of zero."""
    bins = counts.numel()
    above = pad(counts.flip(0).cumsum(0).flip(0), (0, 1))
    tail = pad((above[1:] + counts / 2).flip(0).cumsum(0).flip(0), (0, 1))
    counts = pad(counts, (0, 1))
    sums = []
    most = max(int(levels.max()), 1)
    for part in torch.arange(len(scale)).split(max(1, BLOCK // most)):
        level = torch.arange(most, dtype=torch.float64)
        threshold = ((level + 0.5) * scale[part, None]).clamp_(max=bins)
        threshold.masked_fill_(level >= levels[part, None], bins)
        place = threshold.long()
        rest = threshold - place
        sums.append((tail[place] - rest * (above[place] - counts[place] * rest / 2)).sum(1))
    return torch.cat(sums)


def _by_bins(histogram: Histogram, scale: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Compute the error by bins; ``scale`` is in bins.

    Adjacent bins share an edge, which is weighted by the difference of their counts.
    """
    half, zero = histogram.half, torch.zeros(1, dtype=torch.int64)
    drops = -histogram.counts.diff(prepend=zero, append=zero)
    place = drops.nonzero().flatten()
    edges, drops = (place - half).double(), drops[place].double()
    errors = []
    for part in torch.arange(len(scale)).split(max(1, BLOCK // max(1, len(edges)))):
        ends = (lower[part, None].double(), upper[part, None].double())
        errors.append(_potential(edges / scale[part, None], *ends) @ drops)
    return torch.cat(errors) * scale**3


def _potential(v: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Integrate the squared error ``(v - clamp(round(v), lower, upper))²`` from 0 to ``v``, in steps.

    A whole step adds 1/12; a partial step and the part beyond the bounds add a cubic.
    """
    inside = torch.minimum(torch.maximum(v, lower), upper)
    nearest = torch.floor(inside + 0.5)
    return nearest / 12 + ((inside - nearest) ** 3 + (v - inside) ** 3) / 3


def _clipped(histogram: Histogram, scale: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the part of the error from clipped values; ``scale`` is in bins."""
    half, counts = histogram.half, histogram.counts.double()
    return _beyond(counts[half:], scale, upper) + _beyond(counts[:half].flip(0), scale, -lower)


def _beyond(counts: Tensor, scale: Tensor, levels: Tensor) -> Tensor:
    """Return the clipping error on one side of zero, which has ``levels`` levels.

    The bin in which clipping begins contributes in part, by an integral; the bins beyond it by moments.
    """
    bins = counts.numel()
    place = torch.arange(bins, dtype=torch.float64)
    moments = (torch.ones_like(place), place + 0.5, place * (place + 1) + 1 / 3)
    number, total, squares = (pad((counts * moment).flip(0).cumsum(0).flip(0), (0, 1)) for moment in moments)
    last = levels * scale
    threshold = (last + scale / 2).clamp(max=bins)
    cut = threshold.long()
    behind = (cut + 1).clamp(max=bins)
    part = pad(counts, (0, 1))[cut] * ((cut + 1 - last) ** 3 - (threshold - last) ** 3) / 3
    return part + squares[behind] - 2 * last * total[behind] + last**2 * number[behind]


def row_errors(rows: Tensor, low: Tensor, high: Tensor, grid: AnyGrid, *, clipping: float = 1.0) -> Tensor:
    """Return the sum of squared errors of rows [rows, columns] for their ranges [rows, candidates], float64.

    ``clipping`` is the weight of clipped values. The terms are those of float32 quantization; their sum has a
    relative error of about 1e-6.
    """
    scale, zero = scale_and_zero_point(low, high, grid)
    if isinstance(grid, FloatGrid):
        return _float_row_errors(rows, scale, grid.element)
    lower, upper = (grid.qmin - zero).to(rows.dtype), (grid.qmax - zero).to(rows.dtype)
    if rows.is_cpu and rows.dtype is torch.float32 and _kernel() is not None:
        return _native_errors(rows.contiguous(), scale, lower=lower, upper=upper, clipping=clipping)
    return _plain_errors(rows, scale, lower=lower, upper=upper, clipping=clipping)


def _float_row_errors(rows: Tensor, scale: Tensor, element: ElementFormat) -> Tensor:
    errors = torch.empty(scale.shape, dtype=torch.float64, device=rows.device)
    for index in range(scale.shape[1]):
        step = scale[:, index, None]
        rounded = element.round(rows / step).mul_(step)
        errors[:, index] = rounded.sub_(rows).square_().sum(1)
    return errors


def _native_errors(rows: Tensor, scale: Tensor, lower: Tensor, upper: Tensor, clipping: float) -> Tensor:
    operands = [tensor.contiguous() for tensor in (scale, lower, upper)]
    errors = torch.empty(scale.shape, dtype=torch.float64)
    addresses = [tensor.data_ptr() for tensor in operands]
    threads = torch.get_num_threads()
    _kernel()(rows.data_ptr(), *rows.shape, scale.shape[1], *addresses, clipping, errors.data_ptr(), threads)
    return errors


def _plain_errors(rows: Tensor, scale: Tensor, lower: Tensor, upper: Tensor, clipping: float) -> Tensor:
    errors = torch.zeros(scale.shape, dtype=torch.float64, device=rows.device)
    block = max(1, BLOCK // rows.shape[1])
    for part in torch.arange(len(rows), device=rows.device).split(block):
        for index in range(scale.shape[1]):
            s, first, last = (t[part, index, None] for t in (scale, lower, upper))
            for columns in rows[part].split(BLOCK, dim=1):
                squares = quantize_dequantize(columns, s, first, last).sub_(columns).square_()
                if clipping != 1:
                    level = divide(columns, s).round_()
                    squares.mul_(torch.where((level < first) | (level > last), clipping, 1.0))
                errors[part, index] += squares.sum(1)
    return errors


@cache
def _kernel() -> Any:
    """Return the kernel, or None if it cannot be built."""
    addresses = (c_void_p, c_void_p, c_void_p, c_float, c_void_p)
    return native.function("qexp_row_errors", c_void_p, c_int64, c_int64, c_int64, *addresses, c_int)
