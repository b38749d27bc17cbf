"""Attention implementation with taps on its four matmul inputs and on its scores.

It is registered through transformers' public ``AttentionInterface`` under the name ``qexp``, with the mask of
eager attention. Without quantizers the result is bit-identical to eager attention. It depends on no
architecture: an attending module is any module that calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from qexp.config import SiteKind
from qexp.quant.insertion.attention_recompute import RecomputedAttention, are_small
from qexp.quant.quantizer import Quantizer

IMPLEMENTATION = "qexp"
"""Value of ``config._attn_implementation``."""

TAPS = "qexp_attention_taps"
"""Attribute of an attending module with the function that each value passes through, by site kind."""

MASK_VALUE = "qexp_mask_value"
"""Attribute of an attending module with the value added to the scores of padding.

Without it, the lowest float is added.
"""

KEEPS_PROBABILITIES = "qexp_keeps_probabilities"
"""Attribute of an attending module that returns its probabilities in training, too."""

INNER: tuple[SiteKind, ...] = ("attention.scores", "attention.masked_scores", "matmul.probs")
"""Kinds of the values [B, heads, T, S]."""

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
) -> tuple[Tensor, Tensor | None]:
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
        and rounding, since these do not change where the module attends. In training they are None where the
        backward pass computes them again (``RecomputedAttention``): scores of much memory, unless
        ``KEEPS_PROBABILITIES`` is set.
    """
    taps: Taps = getattr(module, TAPS, {})
    query, key = _tap(taps, "matmul.query", query), _tap(taps, "matmul.key", key)
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    core = partial(_probabilities, module, scaling=scaling, dropout=dropout)
    if _is_recomputed(module, taps) and not are_small(query, key):
        value = _tap(taps, "matmul.value", value)
        repeated = partial(_kept, module, core)
        parts = (query, key, value, attention_mask, position_bias)
        result = RecomputedAttention.apply(repeated, dropout > 0, *parts)  # type: ignore[no-untyped-call]
        return result, None
    kept, probabilities = core(query, key, attention_mask, position_bias)
    result = torch.matmul(kept, _tap(taps, "matmul.value", value))
    return result.transpose(1, 2).contiguous(), probabilities


def _probabilities(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    attention_mask: Tensor | None,
    position_bias: Tensor | None,
    *,
    scaling: float,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Return the probabilities [B, heads, T, S] that values are multiplied with, and those before dropout."""
    taps: Taps = getattr(module, TAPS, {})
    scores = torch.matmul(query, key.transpose(2, 3)).mul_(
        scaling
    )  # in place: no gradient needs the unscaled scores
    scores = _tap(taps, "attention.scores", _plus(scores, position_bias))
    scores = _tap(taps, "attention.masked_scores", _masked(scores, attention_mask, module))
    probabilities = nn.functional.softmax(scores, dim=-1)
    kept = nn.functional.dropout(probabilities, p=dropout, training=module.training)
    return _tap(taps, "matmul.probs", kept), probabilities


def _kept(module: nn.Module, core: Callable[..., tuple[Tensor, Tensor]], *parts: Tensor | None) -> Tensor:
    """Return what values of some rows are multiplied with, and leave nothing of it in the quantizers."""
    kept, _ = core(*parts)
    taps: Taps = getattr(module, TAPS, {})
    for tap in (taps[kind] for kind in INNER if kind in taps):
        tap.forget()  # type: ignore[attr-defined]
    return kept


def _is_recomputed(module: nn.Module, taps: Taps) -> bool:
    """Return whether the backward pass computes scores and probabilities again.

    Not where the probabilities are asked for, a compiler traces, or a quantizer of them learns, averages or
    measures its range: those see each batch once, and as a whole.
    """
    if not (module.training and torch.is_grad_enabled()) or torch.compiler.is_compiling():
        return False
    inner = (taps[kind] for kind in INNER if kind in taps)
    return not getattr(module, KEEPS_PROBABILITIES, False) and all(_is_repeatable(each) for each in inner)


def _is_repeatable(tap: Callable[[Tensor], Tensor]) -> bool:
    return isinstance(tap, Quantizer) and tap.repeatable


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
