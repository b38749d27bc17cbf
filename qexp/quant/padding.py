"""Which entries of a value belong to tokens, and which to padding."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor


class Padding:
    """The padding of one batch, with at least one padded place if it is known on the host.

    A value [B, T, H] is padded along its first two axes, [B, heads, T, d] along axes 0 and 2, attention
    probabilities [B, heads, T, T] also along their key columns; a value of any other shape, such as
    [B, H] of a pooler, has no padding.

    Args:
        tokens: bool [B, T], true for tokens that count.
    """

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self._moved = {tokens.device: tokens}

    @classmethod
    def of(cls, mask: Tensor | None) -> Padding | None:
        """Padding by an attention mask [B, T], non-zero for tokens; None where every place counts.

        Of a mask on another device the host does not know, so there nothing is asked.
        """
        if mask is None or (mask.is_cpu and bool((mask != 0).all())):
            return None
        return cls(mask != 0)

    def rows(self, value: Tensor) -> Tensor | None:
        """Bool that broadcasts with all axes but the last, on the value's device; None: all rows count."""
        shape, (batch, length) = value.shape, self.tokens.shape
        if value.dim() == 3 and shape[:2] == (batch, length):
            return self._on(value.device)
        if value.dim() == 4 and (shape[0], shape[2]) == (batch, length):
            return self._on(value.device)[:, None]
        return None

    def entries(self, value: Tensor, *, probabilities: bool) -> Tensor | None:
        """Bool that broadcasts with the value, on its device; None: all of it counts."""
        rows = self.rows(value)
        if rows is None or not (probabilities and value.dim() == 4):
            return None if rows is None else rows[..., None]
        return rows[..., None] & self._on(value.device)[:, None, None, :]

    @cached_property
    def spans(self) -> tuple[Tensor, Tensor]:
        """The runs of tokens of each row of the batch.

        Returns:
            Int64 [B + 1], where each row's runs begin, and int64 [runs, 2], begin and end of each run.
        """
        step = torch.nn.functional.pad(self.tokens.to(torch.int8), (1, 1)).diff(dim=1)
        (row, begin), (_, end) = (step == 1).nonzero().T.contiguous(), (step == -1).nonzero().T
        firsts = torch.searchsorted(row, torch.arange(len(self.tokens) + 1))
        return firsts, torch.stack([begin, end], dim=1)

    def _on(self, device: torch.device) -> Tensor:
        if device not in self._moved:
            self._moved[device] = self.tokens.to(device, non_blocking=True)
        return self._moved[device]
