"""Rounding of a weight by the second moments of its layer's input, as AdaRound and GPTQ have it in common.

Over calibration tokens x, the mean squared error of a layer's output is ``tr(E G E^T)``, where ``E`` is the
error of the weight and ``G = E[x x^T]`` (Nagel et al. 2020, equation 11), so no tokens need to be stored. The
rows of ``E`` do not interact: each is a problem of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from qexp.quant.grid import Grid


@dataclass(frozen=True)
class RoundingProblem:
    """A weight in steps of its grid, and what its rounding costs."""

    steps: Tensor
    """Weight over scale, float32 [out, in]."""
    scale: Tensor
    """Scale, broadcasts with the weight."""
    lower: Tensor
    """Lowest level ``qmin - zero_point``, broadcasts with the weight."""
    upper: Tensor
    """Highest level ``qmax - zero_point``, broadcasts with the weight."""
    gram: Tensor
    """Second moments ``E[x x^T]``, [in, in]."""

    @classmethod
    def of(cls, weight: Tensor, scale: Tensor, zero_point: Tensor, *, grid: Grid, gram: Tensor) -> Self:
        """Pose the problem of a weight [out, in], float32, on a grid with its scale and zero point."""
        scale, zero = (grid.spread(each, len(weight)) for each in (scale, zero_point))
        lower, upper = (grid.qmin - zero).to(weight.dtype), (grid.qmax - zero).to(weight.dtype)
        return cls(weight / scale, scale, lower, upper, gram=gram)

    def clamp(self, levels: Tensor) -> Tensor:
        """Clamp levels [out, in] to those of the grid."""
        return torch.minimum(torch.maximum(levels, self.lower), self.upper)

    def row_errors(self, levels: Tensor) -> Tensor:
        """Return ``e G e^T`` of each row, float64 [out]."""
        error = (levels - self.steps) * self.scale
        return ((error @ self.gram) * error).sum(1, dtype=torch.float64)

    def result(self, chosen: Tensor) -> RoundingResult:
        """Return chosen levels [out, in] where a row's error is smaller than with the nearest levels."""
        nearest = self.clamp(self.steps.round())
        before, after = self.row_errors(nearest), self.row_errors(chosen)
        better = after < before
        return RoundingResult(
            torch.where(better[:, None], chosen, nearest) * self.scale,
            int((better & (chosen != nearest).any(1)).sum()),
            float(before.sum()),
            float(torch.where(better, after, before).sum()),
        )


@dataclass(frozen=True)
class RoundingResult:
    """A rounded weight and its error compared with rounding to the nearest level."""

    weight: Tensor
    """Values of the grid, in the shape of the weight."""
    rows: int
    """Number of rows that differ from rounding to the nearest level, which is no worse for the others."""
    nearest: float
    """``tr(E G E^T)`` with rounding to the nearest level."""
    error: float
    """``tr(E G E^T)`` with this rounding; never above ``nearest``."""
    damping: float | None = None
    """Damping of GPTQ's Hessian."""

    @property
    def ratio(self) -> float:
        """Error relative to that with nearest levels."""
        return self.error / self.nearest if self.nearest > 0 else 1.0


class RoundingMethod(Protocol):
    """Rounding of a weight [out, in], float32, to its grid by second moments ``E[x x^T]``, [in, in]."""

    def __call__(
        self, weight: Tensor, scale: Tensor, zero_point: Tensor, *, grid: Grid, gram: Tensor
    ) -> RoundingResult: ...
