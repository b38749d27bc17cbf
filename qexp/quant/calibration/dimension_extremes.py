"""Lowest and highest value of each dimension of an activation, from the pass that calibrates it.

They show outlier dimensions. On the CPU the kernel of the histogram finds them while it counts
(``histogram_cpu``); elsewhere they cost two reductions for each batch, without waiting for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qexp.quant.calibration.padding import Padding
from qexp.quant.minmax import batch_ends


class DimensionExtremes:
    """Extremes of the last axis of one value, [B, T, H] or [B, H], over all batches, on its device.

    A value of other axes, and one whose last axis has another size in some batch, has no dimensions.
    """

    def __init__(self) -> None:
        self._ends: Tensor | None = None
        self._has_dimensions = True

    def within(self, value: Tensor) -> Tensor | None:
        """Return the extremes so far, float32 [2, H], to be widened in place; None without dimensions."""
        self._has_dimensions &= value.dim() in (2, 3)
        if self._has_dimensions and self._ends is None:
            beyond = torch.tensor([[torch.inf], [-torch.inf]], device=value.device)
            self._ends = beyond.repeat(1, value.shape[-1])
        self._has_dimensions &= self._ends is not None and self._ends.shape[1] == value.shape[-1]
        return self._ends if self._has_dimensions else None

    def add(self, value: Tensor, padding: Padding | None) -> None:
        """Widen the extremes by a batch."""
        if (ends := self.within(value)) is None or not value.numel():
            return
        rows = None if padding is None else padding.rows(value)
        low, high = batch_ends(value.float(), value.dim() - 1, None if rows is None else rows[..., None])
        torch.minimum(ends[0], low, out=ends[0])
        torch.maximum(ends[1], high, out=ends[1])

    def read(self) -> Tensor | None:
        """Return the lowest and the highest values, float32 [2, H] on the host; None if there are none."""
        if self._ends is None or not self._has_dimensions:
            return None
        ends = self._ends.cpu().clone()
        return ends if bool((ends[0] <= ends[1]).all()) else None
