"""Attention of a decoder in a search: all beams of a sentence read one copy of its cross-attention keys.

While a decoder is traced, each attention of the model passes through :func:`fold_beams`. It moves the beams
of a sentence from the batch to the axis of queries, so that keys and values of the source are neither
repeated nor gathered for each beam. Sums and their order are the same for each query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "qexp_beams"
"""Value of ``config._attn_implementation`` while a decoder is traced."""
BEAMS = "qexp_beams"
"""Attribute of a key [sentences, heads, length, d] with the numbers of sentences and of beams."""
LOWEST = torch.finfo(torch.float32).min
"""Added to the scores of padding, as in the masks of transformers' eager attention."""

Attention = Callable[..., tuple[Tensor, Tensor]]


@contextmanager
def folding_beams(model: nn.Module) -> Iterator[None]:
    """Let the attention of a model fold the beams of marked keys, until the context ends.

    Attention that has an implementation of its own, as that of quantized models, is called on the folded
    queries. Eager and SDPA attention are written as two products and a softmax.
    """
    configs: dict[int, Any] = {
        id(each): each
        for each in (getattr(module, "config", None) for module in model.modules())
        if hasattr(each, "_attn_implementation")
    }
    before = {key: config._attn_implementation for key, config in configs.items()}
    names = {name for name in before.values() if name not in ("eager", "sdpa", None)}
    inner = AttentionInterface()[names.pop()] if names else plain_attention
    AttentionInterface.register(NAME, partial(fold_beams, inner))
    AttentionMaskInterface.register(NAME, eager_mask)
    for config in configs.values():
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


def mark(keys: Tensor, sentences: int, beams: int) -> None:
    """Mark a key of the source as shared by the beams of each sentence."""
    setattr(keys, BEAMS, (sentences, beams))


def fold_beams(
    inner: Attention,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **arguments: Any,
) -> tuple[Tensor, Tensor]:
    """Compute attention; where the key is marked, for the beams of a sentence together.

    Args:
        inner: Attention that is computed.
        module: Attending module.
        query: Queries [sentences * beams, heads, T, d].
        key: Keys [sentences, heads, S, d] if marked, with a row for each query's otherwise.
        value: Values in the shape of the keys.
        attention_mask: Mask that is added to the scores, [sentences, 1, 1, S] for a marked key.
        arguments: Further arguments of the attention; a marked key has no bias of positions.

    Returns:
        Context [sentences * beams, T, heads, d], and the probabilities.
    """
    if not hasattr(key, BEAMS):
        return inner(module, query, key, value, attention_mask=attention_mask, **arguments)
    (sentences, beams), (_, heads, length, width) = getattr(key, BEAMS), query.shape
    arguments["position_bias"] = None  # T5 has zeros there, one for each query of an unfolded batch
    apart = query.reshape((sentences, beams, heads, length, width))
    folded = apart.transpose(1, 2).reshape(sentences, heads, beams * length, width)
    context, probabilities = inner(module, folded, key, value, attention_mask=attention_mask, **arguments)
    return context.reshape(sentences * beams, length, heads, context.shape[-1]), probabilities


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Compute scaled dot-product attention, as transformers' eager attention does without dropout."""
    factor = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(2, 3)) * factor
    for added in (position_bias, attention_mask):
        scores = scores if added is None else scores + added
    probabilities = torch.softmax(scores, dim=-1)
    return torch.matmul(probabilities, value).transpose(1, 2).contiguous(), probabilities
