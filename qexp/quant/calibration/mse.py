"""Squared error of candidate ranges: over a histogram, and over the rows of a weight.

Values are taken as even within a bin of a histogram. Two closed forms give the same error; which one
is cheaper depends on whether a grid has more levels or a histogram more bins:

- By levels. Were all values rounded to 0, the error would be the sum of squares. Moving what lies above
  ``t = (q + 1/2) * scale`` on from level ``q`` to ``q + 1`` lowers it by ``2 * scale * R(t)``, where
  ``R(t)`` sums ``x - t`` over all ``x > t``. ``R`` at an edge of a bin is a sum that is computed once;
  within a bin it is a parabola. So a candidate costs one look-up for each of its levels.
- By bins. The integral of the error over a bin is a difference of ``_potential`` at its edges.

Errors of clipped values can be given another weight than those of rounding. Clipped is what would round
to a level that the grid does not have, half a step or more beyond its ends.
"""

from __future__ import annotations

from ctypes import c_float, c_int, c_int64, c_void_p
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from qexp.quant.calibration.histogram import Histogram
from qexp.quant.grid import Grid, divide, quantize_dequantize, scale_and_zero_point
from qexp.quant.kernels import native

BLOCK = 1 << 18
"""Elements worked on at a time: small enough for the cache."""


def histogram_errors(
    histogram: Histogram, low: Tensor, high: Tensor, grid: Grid, *, clipping: float = 1.0
) -> Tensor:
    """Summed squared error of each range [candidates], float64; ``clipping`` is the weight of clipped values.

    Rounding adds about 1e-16 of the values' sum of squares, so the smallest errors of wide grids, about
    1e-9 of that sum with 16 bits, are right to about 1e-6 of themselves.
    """
    if histogram.width == 0:
        return torch.zeros_like(low)
    scale, zero = scale_and_zero_point(low, high, grid)
    steps, lower, upper = scale.double() / histogram.width, grid.qmin - zero, grid.qmax - zero
    edges = histogram.counts.diff(prepend=torch.zeros(1), append=torch.zeros(1)).count_nonzero()
    by = _by_levels if grid.qmax - grid.qmin < int(edges) else _by_bins
    errors = by(histogram, steps, lower, upper)
    if clipping != 1:
        errors += (clipping - 1) * _clipped(histogram, steps, lower, upper)
    return errors * histogram.width**2


def _by_levels(histogram: Histogram, scale: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """``scale`` in bins."""
    half, counts = histogram.half, histogram.counts.double()
    place = torch.arange(-half, half, dtype=torch.float64)
    squares = (counts * (place * (place + 1) + 1 / 3)).sum()
    gain = _gain(counts[half:], scale, upper) + _gain(counts[:half].flip(0), scale, -lower)
    return squares - 2 * scale * gain


def _gain(counts: Tensor, scale: Tensor, levels: Tensor) -> Tensor:
    """Sum of ``R`` over the first thresholds on one side of zero, as many as there are levels."""
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
    """``scale`` in bins. Neighbouring bins share an edge, which counts by the step between them."""
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
    """Integral of the squared error ``(v - clamp(round(v), lower, upper))²`` from 0 to ``v``, in steps.

    A whole step adds 1/12, the rest of a step and what lies beyond the ends adds a cubic.
    """
    inside = torch.minimum(torch.maximum(v, lower), upper)
    nearest = torch.floor(inside + 0.5)
    return nearest / 12 + ((inside - nearest) ** 3 + (v - inside) ** 3) / 3


def _clipped(histogram: Histogram, scale: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The part of the error that is of clipped values; ``scale`` in bins."""
    half, counts = histogram.half, histogram.counts.double()
    return _beyond(counts[half:], scale, upper) + _beyond(counts[:half].flip(0), scale, -lower)


def _beyond(counts: Tensor, scale: Tensor, levels: Tensor) -> Tensor:
    """Error of what is clipped on one side of zero, where there are so many levels.

    The bin in which clipping begins counts in part, by an integral; the bins behind it by moments.
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


def row_errors(rows: Tensor, low: Tensor, high: Tensor, grid: Grid, *, clipping: float = 1.0) -> Tensor:
    """Summed squared error of each row [rows, columns] in each of its ranges [rows, candidates], float64.

    ``clipping`` is the weight of clipped values. Terms are those of quantization in float32; their sum is
    right to about 1e-6 of itself.
    """
    scale, zero = scale_and_zero_point(low, high, grid)
    lower, upper = (grid.qmin - zero).to(rows.dtype), (grid.qmax - zero).to(rows.dtype)
    if rows.is_cpu and rows.dtype is torch.float32 and _kernel() is not None:
        return _native_errors(rows.contiguous(), scale, lower, upper, clipping)
    return _plain_errors(rows, scale, lower, upper, clipping)


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
    """The kernel, or None where it cannot be built."""
    addresses = (c_void_p, c_void_p, c_void_p, c_float, c_void_p)
    return native.function("qexp_row_errors", c_void_p, c_int64, c_int64, c_int64, *addresses, c_int)
