"""Attention implementation with taps on its four matmul inputs and on its scores.

It is registered through transformers' public ``AttentionInterface`` under the name ``qexp``, with the mask of
eager attention. Without quantizers the result is bit-identical to eager attention. It depends on no
architecture: an attending module is any module that calls it.
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
"""Attribute of an attending module with the function that each value passes through, by site kind."""

MASK_VALUE = "qexp_mask_value"
"""Attribute of an attending module with the value added to the scores of padding.

Without it, the lowest float is added.
"""

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
    """Compute scaled dot-product attention in the order of transformers' eager attention.

    Args:
        module: Attending module. Its ``TAPS`` see query, key, scores before and after the mask, probabilities
            (after dropout) and value.
        query: Queries [B, heads, T, d].
        key: Keys [B, heads, S, d]; S equals T except in cross attention.
        value: Values [B, heads, S, d].
        attention_mask: Mask [B, 1, T, S] added to the scores; None adds nothing.
        scaling: Factor on the scores; None means ``d ** -0.5``.
        dropout: Probability of dropping an attention probability in training.
        position_bias: Bias [1, heads, T, S] added to the scores before the mask, as in T5; None adds nothing.
        kwargs: Arguments of other implementations, ignored.

    Returns:
        Context [B, T, heads, d], and probabilities [B, heads, T, S] as computed by softmax, before dropout
        and rounding, since these do not change where the module attends.
    """
    taps: Taps = getattr(module, TAPS, {})
    query, key = _tap(taps, "matmul.query", query), _tap(taps, "matmul.key", key)
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)).mul_(
        scaling
    )  # in place: no gradient needs the unscaled scores
    scores = _tap(taps, "attention.scores", _plus(scores, position_bias))
    scores = _tap(taps, "attention.masked_scores", _masked(scores, attention_mask, module))
    probabilities = nn.functional.softmax(scores, dim=-1)
    kept = nn.functional.dropout(probabilities, p=dropout, training=module.training)
    kept = _tap(taps, "matmul.probs", kept)
    context = torch.matmul(kept, _tap(taps, "matmul.value", value))
    return context.transpose(1, 2).contiguous(), probabilities


def _masked(scores: Tensor, mask: Tensor | None, module: nn.Module) -> Tensor:
    """Add the mask to the scores, in place unless a tap may have passed the scores on.

    The mask of causal attention hides future tokens besides padding, so its values are not replaced.
    """
    value = getattr(module, MASK_VALUE, None)
    if mask is not None and value is not None and not getattr(module, "is_causal", False):
        mask = mask.clamp(min=value)
    if "attention.scores" not in getattr(module, TAPS, {}):
        return _plus(scores, mask)
    return scores.view_as(scores) if mask is None else scores + mask  # a distinct tensor, even without a mask


def _plus(scores: Tensor, more: Tensor | None) -> Tensor:
    """Add in place, unless mixed precision promotes the sum to the wider type."""
    if more is None:
        return scores
    return scores + more if scores.dtype != more.dtype else scores.add_(more)


def register() -> None:
    """Register the implementation with transformers; repeated calls are harmless."""
    AttentionInterface.register(IMPLEMENTATION, attend)
    AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


def _tap(taps: Taps, kind: SiteKind, tensor: Tensor) -> Tensor:
    tap = taps.get(kind)
    return tensor if tap is None else tap(tensor)
