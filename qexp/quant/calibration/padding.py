"""Masks that separate the tokens of a value from its padding."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor


class Padding:
    """Padding of one batch, with at least one padded position if that is known on the host.

    A value [B, T, H] is padded along its first two axes, a value [B, heads, T, d] along axes 0 and 2, and
    attention probabilities [B, heads, T, S] along their key columns, too. A value of any other shape, such as
    [B, H] of a pooler, has no padding.

    Args:
        tokens: Bool [B, T], true for rows that count; None if all do.
        columns: Bool [B, S], true for key columns that count; None if all do.
    """

    def __init__(self, tokens: Tensor | None, columns: Tensor | None) -> None:
        self.tokens, self.columns = tokens, columns
        self._moved: dict[tuple[int, torch.device], Tensor] = {}

    @classmethod
    def of(cls, mask: Tensor | None) -> Padding | None:
        """Return the padding of an attention mask [B, T], non-zero for tokens; None if every position counts.

        A mask on another device is not inspected, to avoid synchronizing with it.
        """
        return cls.between(mask, mask)

    @classmethod
    def between(cls, rows: Tensor | None, columns: Tensor | None) -> Padding | None:
        """Return the padding of rows [B, T] attending to columns of another sequence [B, S], as in ``of``."""
        rows = None if _full(rows) else rows
        columns = None if _full(columns) else columns
        if rows is None and columns is None:
            return None
        return cls(None if rows is None else rows != 0, None if columns is None else columns != 0)

    def rows(self, value: Tensor) -> Tensor | None:
        """Return the rows that count, or None if all do.

        The mask is bool, broadcasts with all axes but the last, and lies on the device of the value.
        """
        if self.tokens is None:
            return None
        shape, (batch, length) = value.shape, self.tokens.shape
        if value.dim() == 3 and shape[:2] == (batch, length):
            return self._on(self.tokens, value.device)
        if value.dim() == 4 and (shape[0], shape[2]) == (batch, length):
            return self._on(self.tokens, value.device)[:, None]
        return None

    def unfolded(self, value: Tensor) -> Tensor:
        """Return a value [B * heads, T, d] as [B, heads, T, d], and any other unchanged."""
        mask = self.tokens if self.tokens is not None else self.columns
        assert mask is not None
        batch, length = len(mask), None if self.tokens is None else self.tokens.shape[1]
        folded = value.dim() == 3 and len(value) > batch and len(value) % batch == 0
        return value.unflatten(0, (batch, -1)) if folded and length in (None, value.shape[1]) else value

    def pads_columns(self, value: Tensor) -> bool:
        """Return whether probabilities [B, heads, T, S] have columns that do not count."""
        if self.columns is None or value.dim() != 4:
            return False
        return (value.shape[0], value.shape[3]) == tuple(self.columns.shape)

    def entries(self, value: Tensor, *, probabilities: bool) -> Tensor | None:
        """Return the entries that count as a bool mask that broadcasts with the value, or None if all do."""
        if (unfolded := self.unfolded(value)) is not value:
            mask = self.entries(unfolded, probabilities=probabilities)
            return None if mask is None else mask.expand(-1, unfolded.shape[1], -1, -1).flatten(0, 1)
        rows = self.rows(value)
        if not (probabilities and self.pads_columns(value)):
            return None if rows is None else rows[..., None]
        assert self.columns is not None
        columns = self._on(self.columns, value.device)[:, None, None, :]
        return columns if rows is None else rows[..., None] & columns

    @cached_property
    def spans(self) -> tuple[Tensor, Tensor]:
        """Runs of consecutive columns that count, for each row of the batch.

        The first tensor, int64 [B + 1], is the index at which each row's runs begin; the second, int64
        [runs, 2], is the begin and end of each run.
        """
        assert self.columns is not None
        step = torch.nn.functional.pad(self.columns.to(torch.int8), (1, 1)).diff(dim=1)
        (row, begin), (_, end) = (step == 1).nonzero().T.contiguous(), (step == -1).nonzero().T
        firsts = torch.searchsorted(row, torch.arange(len(self.columns) + 1))
        return firsts, torch.stack([begin, end], dim=1)

    def _on(self, mask: Tensor, device: torch.device) -> Tensor:
        if mask.device == device:
            return mask
        if (id(mask), device) not in self._moved:
            self._moved[id(mask), device] = mask.to(device, non_blocking=True)
        return self._moved[id(mask), device]


def paddings_of(
    sides: Mapping[str, tuple[str, str]], masks: Mapping[str, Tensor | None]
) -> dict[str, Padding | None]:
    """Return the padding of each value, see ``Padding.between``.

    Args:
        sides: Sides of the rows and of the columns, by value.
        masks: Attention mask [B, T] of each side; None, and a side without one, counts all.
    """
    paddings = {pair: Padding.between(masks.get(pair[0]), masks.get(pair[1])) for pair in set(sides.values())}
    return {name: paddings[pair] for name, pair in sides.items()}


def _full(mask: Tensor | None) -> bool:
    """Return whether every position is known to count."""
    return mask is None or (mask.is_cpu and bool((mask != 0).all()))
