"""Attention with its four matmul inputs open to quantizers.

Registered through transformers' public ``AttentionInterface`` under the name ``qexp``, with the mask
of eager attention. Without quantizers it computes the very bits of eager attention. It is a function
of no architecture: a module that attends is one that calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from qexp.config import SiteKind

IMPLEMENTATION = "qexp"
"""Value of ``config._attn_implementation``."""

TAPS = "qexp_matmul_taps"
"""Attribute of an attending module: what its matmul inputs pass through, by kind of site."""

Taps = Mapping[SiteKind, Callable[[Tensor], Tensor]]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention in the order of transformers' eager attention.

    Args:
        module: module that attends; its ``TAPS`` see query, key, probabilities (after dropout) and value.
        query: [B, heads, T, d]; key and value [B, heads, S, d], where S is T but in cross attention.
        key: see query.
        value: see query.
        attention_mask: added to the scores, [B, 1, T, S]; None adds nothing.
        scaling: factor on the scores; None is ``d ** -0.5``.
        dropout: share of probabilities that are dropped in training.
        position_bias: added to the scores before the mask, [1, heads, T, S], as in T5; None adds nothing.
        kwargs: what other implementations understand.

    Returns:
        Context [B, T, heads, d], and probabilities [B, heads, T, S].
    """
    taps: Taps = getattr(module, TAPS, {})
    query, key = _tap(taps, "matmul.query", query), _tap(taps, "matmul.key", key)
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)).mul_(scaling)  # in place: no gradient needs the old
    scores = _plus(_plus(scores, position_bias), attention_mask)
    probabilities = nn.functional.softmax(scores, dim=-1)
    probabilities = nn.functional.dropout(probabilities, p=dropout, training=module.training)
    probabilities = _tap(taps, "matmul.probs", probabilities)
    context = torch.matmul(probabilities, _tap(taps, "matmul.value", value))
    return context.transpose(1, 2).contiguous(), probabilities


def _plus(scores: Tensor, more: Tensor | None) -> Tensor:
    """In place, but where mixed precision makes the sum one of the wider type."""
    if more is None:
        return scores
    return scores + more if scores.dtype != more.dtype else scores.add_(more)


def register() -> None:
    """Make the implementation known to transformers; again is harmless."""
    AttentionInterface.register(IMPLEMENTATION, attend)
    AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


def _tap(taps: Taps, kind: SiteKind, tensor: Tensor) -> Tensor:
    tap = taps.get(kind)
    return tensor if tap is None else tap(tensor)
