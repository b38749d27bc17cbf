"""Minimum and maximum of a batch, or of groups of its dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

Ends = tuple[Tensor, Tensor]
"""Minimum and maximum."""


def batch_ends(x: Tensor, axis: int | None, counted: Tensor | None = None) -> Ends:
    """Return the minimum and maximum of a batch: scalars, or one for each index of ``axis``.

    Args:
        x: Values of any shape.
        axis: Axis with a range for each index, or None.
        counted: Bool that broadcasts with ``x`` and is true for at least one value; None counts all.
    """
    x = x.detach()
    low, high = (x, x) if counted is None else (x.where(counted, torch.inf), x.where(counted, -torch.inf))
    if axis is None:
        return low.amin(), high.amax()
    return low.movedim(axis, 0).flatten(1).amin(1), high.movedim(axis, 0).flatten(1).amax(1)


def group_ends(ends: Ends, members: Tensor, groups: int) -> Ends:
    """Reduce the minimum and maximum of each dimension [H] to those of each group, float32 [groups].

    ``members`` is the group of each dimension, int64 [H].
    """
    empty = torch.full((groups,), torch.inf, device=members.device)
    low, high = (end.float() for end in ends)
    lows = empty.scatter_reduce(0, members, low, "amin")
    return lows, (-empty).scatter_reduce(0, members, high, "amax")
