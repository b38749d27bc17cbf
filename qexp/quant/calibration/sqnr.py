"""Candidate ranges of AIMET's ``tf_enhanced``, the scheme of least expected noise (Siddegowda et al. 2022).

They follow ``SqnrEncodingAnalyzer`` of AIMET 2, "Neural network quantization with AI model efficiency toolkit
(AIMET)", arXiv 2201.08442, section 3.2. ``QuantizationSimModel`` of AIMET 2.42 runs another class for
``tf_enhanced``, ``TfEnhancedEncodingAnalyzer``. Its histogram has 512 bins within about four times the range
of the first batch, and counts values of later batches beyond that at its ends. The scheme here sees all
batches alike. ``N`` is the number of steps of a grid, its highest integer minus its lowest:

- symmetric: scales ``i / (n - 1)`` of the scale that covers the observed range, for ``i`` from 1 to ``n``;
  on a full grid, of the largest magnitude over ``N / 2``;
- asymmetric: the same scales, each with zero points evenly spaced over the ``N`` steps, and with the zero
  point of the observed range. Each range is intersected with the observed range, which makes its scale finer.

The noise of a candidate is the squared error, in which values that round to a level outside the grid have
weight ``gamma``. There are two differences to AIMET: values are assumed to be uniform within a bin of the
histogram instead of at its midpoint, which matters if bins are wider than steps; and of equal candidates the
widest is selected.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qexp.config import SqnrCalibrator
from qexp.quant.grid import Grid, scale_and_zero_point


def candidates(low: Tensor, high: Tensor, grid: Grid, settings: SqnrCalibrator) -> tuple[Tensor, Tensor]:
    """Return the candidate ranges, widest scale first.

    Args:
        low: Lowest observed value, of any shape.
        high: Highest observed value, in the shape of ``low``.
        grid: Symmetric or asymmetric grid.
        settings: Calibrator settings, with the numbers of scales and zero points.

    Returns:
        Lows and highs, float64 [..., candidates].
    """
    low, high = low.double().clamp(max=0)[..., None], high.double().clamp(min=0)[..., None]
    if grid.symmetric:
        shares = _shares(settings.symmetric_candidates, low)
        if grid.full:
            scales = torch.maximum(-low, high) / ((grid.qmax - grid.qmin) / 2) * shares
            return scales * grid.qmin, scales * grid.qmax
        return low * shares, high * shares
    return _asymmetric(low, high, grid, settings)


def _asymmetric(low: Tensor, high: Tensor, grid: Grid, settings: SqnrCalibrator) -> tuple[Tensor, Tensor]:
    """Return the candidates of an asymmetric grid; ``low`` and ``high`` are [..., 1]."""
    steps = grid.qmax - grid.qmin
    count = min(settings.offset_candidates, steps + 2)
    even = torch.linspace(-steps, 0, count - 1, dtype=low.dtype, device=low.device).round()
    observed = grid.qmin - scale_and_zero_point(low, high, grid)[1].to(low.dtype)
    offsets = torch.cat([observed, even.expand(*low.shape[:-1], -1)], dim=-1)
    widest = (high - low) / steps
    scales = (widest * _shares(settings.scale_candidates, low))[..., None]
    lows = (scales * offsets[..., None, :]).flatten(-2)
    highs = (scales * (offsets[..., None, :] + steps)).flatten(-2)
    first, last = widest * observed, widest * (observed + steps)
    lows, highs = torch.maximum(lows, first), torch.minimum(highs, last)
    empty = lows >= highs  # the whole grid lies on the side of zero without observed values
    return torch.where(empty, first, lows), torch.where(empty, last, highs)


def _shares(count: int, like: Tensor) -> Tensor:
    """Return the scales as shares of the covering one, in descending order; the first is above 1."""
    return torch.arange(count, 0, -1, dtype=like.dtype, device=like.device) / (count - 1)
