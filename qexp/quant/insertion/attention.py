"""Attention with its four matmul inputs, and its scores, open to quantizers.

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

TAPS = "qexp_attention_taps"
"""Attribute of an attending module: what values pass through on their way, by kind of site."""

MASK_VALUE = "qexp_mask_value"
"""Attribute of an attending module: what is added to the scores of padding; without it, the lowest float."""

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
        module: module that attends; its ``TAPS`` see query, key, scores before and after the mask,
            probabilities (after dropout) and value.
        query: [B, heads, T, d]; key and value [B, heads, S, d], where S is T but in cross attention.
        key: see query.
        value: see query.
        attention_mask: added to the scores, [B, 1, T, S]; None adds nothing.
        scaling: factor on the scores; None is ``d ** -0.5``.
        dropout: share of probabilities that are dropped in training.
        position_bias: added to the scores before the mask, [1, heads, T, S], as in T5; None adds nothing.
        kwargs: what other implementations understand.

    Returns:
        Context [B, T, heads, d], and probabilities [B, heads, T, S] as softmax made them: what is dropped or
        rounded afterwards is no matter of where the module attends to.
    """
    taps: Taps = getattr(module, TAPS, {})
    query, key = _tap(taps, "matmul.query", query), _tap(taps, "matmul.key", key)
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)).mul_(scaling)  # in place: no gradient needs the old
    scores = _tap(taps, "attention.scores", _plus(scores, position_bias))
    scores = _tap(taps, "attention.masked_scores", _masked(scores, attention_mask, module))
    probabilities = nn.functional.softmax(scores, dim=-1)
    kept = nn.functional.dropout(probabilities, p=dropout, training=module.training)
    kept = _tap(taps, "matmul.probs", kept)
    context = torch.matmul(kept, _tap(taps, "matmul.value", value))
    return context.transpose(1, 2).contiguous(), probabilities


def _masked(scores: Tensor, mask: Tensor | None, module: nn.Module) -> Tensor:
    """Scores plus the mask, in place, but for scores that a tap may have handed to others.

    The mask of a causal attention hides what is to come, not padding alone, and stays as it is.
    """
    value = getattr(module, MASK_VALUE, None)
    if mask is not None and value is not None and not getattr(module, "is_causal", False):
        mask = mask.clamp(min=value)
    if "attention.scores" not in getattr(module, TAPS, {}):
        return _plus(scores, mask)
    return scores.view_as(scores) if mask is None else scores + mask  # another value, also without a mask


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
