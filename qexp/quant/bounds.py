"""Bounds of the range that a grid represents, in steps from zero."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from qexp.quant.grid import Grid

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Bounds:
    """Clamping bounds ``lower = qmin - zero_point`` and ``upper = qmax - zero_point``.

    They are numbers where all ranges of a tensor share them, else float32 tensors that broadcast with it.
    """

    lower: float | Tensor
    upper: float | Tensor

    @classmethod
    def of(cls, grid: Grid, zero_point: Tensor, *, dimensions: int) -> Bounds:
        """Return the bounds for tensors with ``dimensions`` axes.

        A per-tensor zero point is read on the host, once.
        """
        if zero_point.dim() == 0 or grid.symmetric:
            zero = 0 if grid.symmetric else int(zero_point)
            return cls(float(grid.qmin - zero), float(grid.qmax - zero))
        return cls.around(grid, grid.expand(zero_point, dimensions))

    @classmethod
    def around(cls, grid: Grid, zero_point: Tensor) -> Bounds:
        """Return the bounds of zero points that broadcast with the values.

        Nothing is read on the host. The gradient of a learned zero point is preserved.
        """
        return cls((grid.qmin - zero_point).float(), (grid.qmax - zero_point).float())

    def flat(self, channels: int, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper bound of each channel, float32 [channels]."""
        return _flat(self.lower, channels, device), _flat(self.upper, channels, device)


def _flat(end: float | Tensor, channels: int, device: torch.device) -> Tensor:
    if isinstance(end, Tensor):
        return end.reshape(-1) if end.numel() == channels else end.reshape(-1).expand(channels).contiguous()
    return _filled(end, channels, device)


@lru_cache(maxsize=1024)
def _filled(value: float, channels: int, device: torch.device) -> Tensor:
    return torch.full((channels,), value, dtype=torch.float32, device=device)
