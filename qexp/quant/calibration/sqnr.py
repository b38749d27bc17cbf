"""Candidates of AIMET's ``tf_enhanced``, the scheme of the least expected noise (Siddegowda et al. 2022).

After ``SqnrEncodingAnalyzer`` of AIMET 2, "Neural network quantization with AI model efficiency toolkit
(AIMET)", arXiv 2201.08442, section 3.2. With ``N`` the steps of a grid, its highest integer less its lowest:

- symmetric: scales ``i / (n - 1)`` of the one that covers what was seen, for ``i`` from 1 to ``n``;
- asymmetric: the same scales, each with zero points that are even over the grid, and with the zero point of
  what was seen. Of such a range only what lies within the range seen is kept, so its scale is finer.

The noise of a candidate is the squared error, in which values that round to a level beyond the grid count
``gamma`` times. Two things differ: values are taken as even within a bin of the histogram, not as its
midpoint, which matters where bins are wider than steps; and of equal candidates the widest is taken.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qexp.config import SqnrCalibrator
from qexp.quant.grid import Grid, scale_and_zero_point


def candidates(low: Tensor, high: Tensor, grid: Grid, settings: SqnrCalibrator) -> tuple[Tensor, Tensor]:
    """Ranges to choose from, widest scale first.

    Args:
        low: lowest value seen, of any shape.
        high: highest value seen.
        grid: symmetric or not.
        settings: how many scales and zero points.

    Returns:
        Lows and highs, float64 [..., candidates].
    """
    low, high = low.double().clamp(max=0)[..., None], high.double().clamp(min=0)[..., None]
    if grid.symmetric:
        shares = _shares(settings.symmetric_candidates, low)
        return low * shares, high * shares
    return _asymmetric(low, high, grid, settings)


def _asymmetric(low: Tensor, high: Tensor, grid: Grid, settings: SqnrCalibrator) -> tuple[Tensor, Tensor]:
    """``low`` and ``high`` are [..., 1]."""
    steps = grid.qmax - grid.qmin
    count = min(settings.offset_candidates, steps + 2)
    even = torch.linspace(-steps, 0, count - 1, dtype=low.dtype, device=low.device).round()
    seen = grid.qmin - scale_and_zero_point(low, high, grid)[1].to(low.dtype)
    offsets = torch.cat([seen, even.expand(*low.shape[:-1], -1)], dim=-1)
    widest = (high - low) / steps
    scales = (widest * _shares(settings.scale_candidates, low))[..., None]
    lows = (scales * offsets[..., None, :]).flatten(-2)
    highs = (scales * (offsets[..., None, :] + steps)).flatten(-2)
    first, last = widest * seen, widest * (seen + steps)
    lows, highs = torch.maximum(lows, first), torch.minimum(highs, last)
    empty = lows >= highs  # all of the grid lies on the side of zero where nothing was seen
    return torch.where(empty, first, lows), torch.where(empty, last, highs)


def _shares(count: int, like: Tensor) -> Tensor:
    """Of the widest scale; one is a little wider still."""
    return torch.arange(count, 0, -1, dtype=like.dtype, device=like.device) / (count - 1)
