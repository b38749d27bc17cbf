"""Pooling of the hidden states of an encoder to a vector for each text.

The name of a pooling stands in the model's configuration (``sentence_pooling``), so that it is saved and
loaded with the weights. The model keeps its class and the names of its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

SENTENCE = "sentence_embedding"
"""Name of the embeddings in the model's output, as in sentence-transformers: float32 [B, D], of norm 1."""


def pool(model: PreTrainedModel) -> PreTrainedModel:
    """Make a model return embeddings, if its configuration names a pooling; another one is left alone.

    A pooler of its own (BERT's ``tanh`` of the first token) is taken out: nothing would read it.
    """
    name = getattr(model.config, "sentence_pooling", None)
    if name is None:
        return model
    if getattr(model, "pooler", None) is not None:
        setattr(model, "pooler", None)  # noqa: B010 - declared as a module
    model.register_forward_hook(_Pooling(POOLINGS[name]), with_kwargs=True)
    return model


class _Pooling:
    """Forward hook that adds the embeddings to the output of a model that is called with keywords."""

    def __init__(self, vectors: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.vectors = vectors

    def __call__(self, model: nn.Module, inputs: Any, keywords: Mapping[str, Tensor], output: Any) -> Any:
        output[SENTENCE] = normalized(self.vectors(output["last_hidden_state"], keywords["attention_mask"]))
        return output


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens of each text, [B, D].

    Args:
        hidden: Hidden states, [B, T, D].
        mask: 1 for tokens and 0 for padding, [B, T].
    """
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    # Means over the padded length in both places: every runtime has them, and they stay small in FP16.
    return (hidden * weights).mean(1) / weights.mean(1)


def first_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the hidden state of the first token, [B, D]."""
    return hidden[:, 0]


def normalized(vectors: Tensor) -> Tensor:
    """Return vectors divided by their Euclidean norm, [B, D]."""
    size = vectors.shape[-1]
    norms: Tensor = (vectors * vectors).mean(-1, keepdim=True).sqrt() * size**0.5
    return vectors / norms


POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": mean_of_tokens, "cls": first_token}
"""Poolings by their name in ``task.pooling``."""
