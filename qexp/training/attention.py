"""Attention during a training: which implementation keeps the least for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from qexp.quant.insertion.hooks import AttentionSwitch

DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout", "attn_dropout")
"""Fields of transformers' configurations for the dropout of attention probabilities."""


@contextmanager
def recomputed_attention(model: nn.Module) -> Iterator[None]:
    """Train with attention that is computed again in the backward pass, where torch would keep its scores.

    ``scaled_dot_product_attention`` without dropout keeps none. With dropout, on a CPU, it keeps the
    probabilities and their mask, [B, heads, T, S] for each layer.
    """
    switch = AttentionSwitch(model) if keeps_scores(model) else None
    try:
        yield
    finally:
        if switch is not None:
            switch.remove()


def keeps_scores(model: nn.Module) -> bool:
    """Return whether the model trains with torch's fused attention and dropout in it, on a CPU."""
    config: Any = getattr(model, "config", None)
    fused = getattr(config, "_attn_implementation", None) == "sdpa"
    dropout = any(getattr(config, name, 0.0) or 0.0 for name in DROPOUTS)
    return fused and dropout and next(model.parameters()).is_cpu
