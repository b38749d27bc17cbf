"""Training of encoder-decoder models by teacher forcing: the decoder reads the target so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qexp.data.microbatches import Batch
from qexp.data.tokenization.pairs import IGNORED
from qexp.models.linear_cross_entropy import LinearCrossEntropy, Targets, withheld_logits
from qexp.tasks.module import TaskModule

PROJECTED = ("bart", "marian", "t5")
"""Model types whose logits are the output projection plus ``final_logits_bias``, if they have one."""


class Translator(TaskModule):
    """Training module of an encoder-decoder model; its arguments are those of every module, and its own."""

    def __init__(self, *arguments: Any, label_smoothing: float = 0.0) -> None:
        super().__init__(*arguments)
        self.label_smoothing = label_smoothing

    def _loss(self, batch: Batch) -> Tensor:
        """Return the loss, without logits of padding, and of target tokens a few at a time where possible."""
        projection = _projection(self.model)
        if projection is None or self.teacher is not None:
            return super()._loss(batch)
        with withheld_logits(projection) as call:
            self(batch)
        assert call.hidden is not None and call.weight is not None
        inside = batch["labels"] != IGNORED
        targets = Targets(batch["labels"][inside], self.label_smoothing)
        total = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            call.hidden[inside], call.weight, _bias(self.model), targets
        )
        return torch.as_tensor(total / len(targets.labels))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross entropy over target tokens, with label smoothing (Szegedy et al., 2016)."""
        return _cross_entropy(logits, batch, self.label_smoothing)

    def evaluation_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the negative log-likelihood of a target token, the mean over all."""
        return _cross_entropy(logits, batch, 0.0)


def _projection(model: Any) -> nn.Linear | None:
    """Return the output projection if nothing but a constant bias follows it, no quantizer either."""
    projection = model.get_output_embeddings()
    compiled = model._compiled_call_impl is not None
    if model.config.model_type not in PROJECTED or compiled or projection._forward_hooks:
        return None
    return projection if isinstance(projection, nn.Linear) and projection.bias is None else None


def _bias(model: Any) -> Tensor | None:
    """Return what is added to the logits [V]; None for zeros."""
    bias = getattr(model, "final_logits_bias", None)
    return bias[0] if bias is not None and bias.any() else None


def _cross_entropy(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    return functional.cross_entropy(
        logits.flatten(0, 1),
        batch["labels"].flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
    )
