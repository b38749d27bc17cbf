"""Bounds of the range that a grid represents, in steps from zero."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from qexp.config import GradientRule
from qexp.quant.element_formats import ElementFormat
from qexp.quant.float_grid import FloatGrid
from qexp.quant.grid import AnyGrid

CPU = torch.device("cpu")
ROUNDING = 2.0**-22
"""Relative slack of the range in which a gradient passes.

A scale is rounded to float32, and so is a quotient by it: the value that set a range may come out beyond its
end, by a share of at most 2**-23."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """Clamping bounds ``lower = qmin - zero_point`` and ``upper = qmax - zero_point``.

    They are numbers where all ranges of a tensor share them, else float32 tensors that broadcast with it.
    """

    lower: float | Tensor
    upper: float | Tensor
    gradient: GradientRule = "range"
    element: ElementFormat | None = None
    """Format that steps are rounded to; None rounds to whole numbers."""

    def round_(self, v: Tensor) -> Tensor:
        """Round steps to those of the grid, to whole numbers in place; the bounds of floats are in there."""
        return v.round_() if self.element is None else self.element.round(v)

    @property
    def passing(self) -> Bounds:
        """Bounds, in steps, between which the straight-through gradient passes; see ``GradientRule``."""
        if self.gradient == "range":
            return self._between(_beyond(self.lower), _beyond(self.upper))
        if self.gradient == "grid":
            return self._between(_rounding_to(self.lower, -0.5), _rounding_to(self.upper, 0.5))
        return self._between(-math.inf, math.inf)

    def _between(self, lower: float | Tensor, upper: float | Tensor) -> Bounds:
        return replace(self, lower=lower, upper=upper, gradient="range")

    @classmethod
    def of(
        cls, grid: AnyGrid, zero_point: Tensor, *, dimensions: int, gradient: GradientRule = "range"
    ) -> Bounds:
        """Return the bounds for tensors with ``dimensions`` axes.

        A per-tensor zero point is read on the host, once.
        """
        if zero_point.dim() == 0 or grid.symmetric:
            zero = 0 if grid.symmetric else int(zero_point)
            element = grid.element if isinstance(grid, FloatGrid) else None
            return cls(float(grid.qmin - zero), float(grid.qmax - zero), gradient, element)
        return cls.around(grid, grid.expand(zero_point, dimensions), gradient)

    @classmethod
    def around(cls, grid: AnyGrid, zero_point: Tensor, gradient: GradientRule = "range") -> Bounds:
        """Return the bounds of zero points that broadcast with the values.

        Nothing is read on the host. The gradient of a learned zero point is preserved.
        """
        return cls((grid.qmin - zero_point).float(), (grid.qmax - zero_point).float(), gradient)

    def flat(self, channels: int, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper bound of each channel, float32 [channels]."""
        return _flat(self.lower, channels, device), _flat(self.upper, channels, device)


def _beyond(end: float | Tensor) -> float | Tensor:
    """Move an end away from zero by the rounding of a scale."""
    return end * (1 + ROUNDING)


def _rounding_to(end: float | Tensor, half: float) -> float | Tensor:
    """Move a whole ``end`` as far as values round to it: ``half`` a step, which itself rounds to even."""
    if isinstance(end, Tensor):
        return (end + half) * torch.where(end % 2 == 0, 1.0, 1 - ROUNDING)
    return (end + half) * (1.0 if end % 2 == 0 else 1 - ROUNDING)


def _flat(end: float | Tensor, channels: int, device: torch.device) -> Tensor:
    if isinstance(end, Tensor):
        return end.reshape(-1) if end.numel() == channels else end.reshape(-1).expand(channels).contiguous()
    return _filled(end, channels, device)


@lru_cache(maxsize=1024)
def _filled(value: float, channels: int, device: torch.device) -> Tensor:
    return torch.full((channels,), value, dtype=torch.float32, device=device)
