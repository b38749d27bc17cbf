"""Smallest and largest values: of a batch, of groups of its dimensions, or of each of its tokens."""

from __future__ import annotations

import torch
from torch import Tensor

Ends = tuple[Tensor, Tensor]
"""Smallest and largest value."""


def batch_ends(x: Tensor, axis: int | None, counted: Tensor | None = None) -> Ends:
    """Ends of all values that count, numbers, or with an axis one for each of its indices.

    Args:
        x: of any shape.
        axis: the axis with a range for each index.
        counted: bool that broadcasts with ``x``; None counts all. At least one value counts.
    """
    x = x.detach()
    low, high = (x, x) if counted is None else (x.where(counted, torch.inf), x.where(counted, -torch.inf))
    if axis is None:
        return low.amin(), high.amax()
    return low.movedim(axis, 0).flatten(1).amin(1), high.movedim(axis, 0).flatten(1).amax(1)


def token_ends(x: Tensor) -> Ends:
    """Ends of each token's values, along the last axis, which stays with size 1."""
    x = x.detach()
    return x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)


def group_ends(ends: Ends, members: Tensor, groups: int) -> Ends:
    """Ends of each group, float32 [groups], of those of its dimensions [H]; ``members`` is int64 [H]."""
    nothing = torch.full((groups,), torch.inf, device=members.device)
    low, high = (end.float() for end in ends)
    lows = nothing.scatter_reduce(0, members, low, "amin")
    return lows, (-nothing).scatter_reduce(0, members, high, "amax")
