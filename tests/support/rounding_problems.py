"""Small weights to round, with second moments of inputs that depend on each other."""

from __future__ import annotations

import torch
from torch import Tensor

from qexp.quant.grid import Grid, scale_and_zero_point

SIZE = 10
"""Weights of a row: 1024 ways to round it."""


def problem(seed: int, rows: int = 12, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """A weight, and second moments of dimensions that depend on each other and have a mean."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(size, size, generator=generator)
    x = torch.randn(500, size, generator=generator) @ mixed + torch.randn(size, generator=generator)
    return torch.randn(rows, size, generator=generator), x.T @ x / len(x)


def grid_of(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Scale and zero point that cover the weight."""
    rows = weight if grid.axis == 0 else weight.reshape(1, -1)
    scale, zero = scale_and_zero_point(rows.amin(1), rows.amax(1), grid)
    return (scale, zero) if grid.axis == 0 else (scale[0], zero[0])
