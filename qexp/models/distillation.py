"""Learning from the run's own FP32 model, beside the labels.

The loss of a batch is the sum of four, each with its weight in :class:`qexp.config.Distillation`:

- ``labels``: the task's own loss.
- ``logits``: ``T^2 * KL(softmax(teacher / T) || softmax(student / T))`` (Hinton, Vinyals and Dean,
  "Distilling the Knowledge in a Neural Network", 2015; the square keeps the gradient's size as T grows); for
  a regression the squared error of the outputs. It is a mean over the terms of the task's own loss: rows,
  starts and ends of answers, or tokens of targets.
- ``hidden``: the mean squared error of hidden states, over embeddings and all layers (TinyBERT, Jiao et al.
  2020; TernaryBERT, Zhang et al. 2020).
- ``attention``: ``KL(teacher || student)`` of attention probabilities, over all layers, heads and queries
  (MiniLM, Wang et al. 2020, which takes the last layer).

Of ``hidden`` and ``attention``, each row has a mean of its own over its tokens that count, and these means
are averaged with the number of terms that the row has in the task's own loss. So the mean over a part of a
batch times the part's share, averaged over the parts, is the mean over the batch: see
:class:`qexp.data.microbatches.Steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from qexp.config import Distillation
from qexp.data.microbatches import Batch
from qexp.data.tokenization.pairs import IGNORED
from qexp.errors import TrainingError
from qexp.models.loading import arguments, logits_of, model_inputs
from qexp.quant.insertion.hooks import AttentionSwitch

Distance = Callable[[Tensor, Tensor, Batch, float], Tensor]
"""Of the student's logits from the teacher's, at a temperature; a number."""
Terms = Callable[[Batch], Tensor]
"""Over how many terms the task's own loss is a mean, by row, [B]."""


class Teacher:
    """The FP32 model, frozen and in evaluation mode, and what is learned from it.

    It is no ``nn.Module``, so that a student that has it keeps its own parameters, state and checkpoints.
    The teacher runs in the precision of the student; what is compared is FP32.

    Args:
        model: It belongs to the teacher from here on.
        plan: Weights and temperature.
        distance: Of logits, for the kind of task.
        row_terms: Of the task's own loss.
    """

    def __init__(
        self, model: PreTrainedModel, plan: Distillation, distance: Distance, row_terms: Terms
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.plan, self.distance, self.row_terms = plan, distance, row_terms
        self.inputs = model_inputs(model)
        open_attention(model, plan)

    @property
    def asked(self) -> dict[str, bool]:
        """What a forward pass, of either model, is to give beside its logits."""
        wanted = {"output_hidden_states": self.plan.hidden, "output_attentions": self.plan.attention}
        return {name: True for name, weight in wanted.items() if weight}

    def to(self, device: torch.device) -> None:
        """Move the teacher to the student's device."""
        nn.Module.to(self.model, device)

    def loss(self, output: Any, batch: Batch, own: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        """The whole loss of a part of a batch, a number.

        Args:
            output: The student's, with what :attr:`asked` names.
            batch: What the student saw.
            own: The task's own loss of float32 logits.

        Raises:
            TrainingError: The model does not give what is to be compared.
        """
        with torch.no_grad():
            theirs = self.model(**arguments(self.model, self.inputs, batch), **self.asked)
        logits, plan = logits_of(output).float(), self.plan
        losses: list[tuple[float, Callable[[], Tensor]]] = [
            (plan.labels, lambda: own(logits, batch)),
            (plan.logits, lambda: self.distance(logits, logits_of(theirs).float(), batch, plan.temperature)),
            (plan.hidden, lambda: self._apart("hidden", output, theirs, batch)),
            (plan.attention, lambda: self._apart("attention", output, theirs, batch)),
        ]
        # Without a loss of the logits the head has no gradient, which processes that share a batch wait for.
        return torch.stack([0 * logits.sum(), *(weight * loss() for weight, loss in losses if weight)]).sum()

    def _apart(self, name: str, ours: Any, theirs: Any, batch: Batch) -> Tensor:
        """How far the layers are from the teacher's: a mean over them, and over the rows by their terms."""
        fields, distance = COMPARED[name]
        layers = [
            distance(one, other, _counting(batch, side))
            for field, side in fields.items()
            for one, other in zip(ours.get(field) or (), theirs.get(field) or (), strict=True)
        ]
        if not layers:
            raise TrainingError(
                f"method.distillation.{name}={getattr(self.plan, name):g}: {type(self.model).__name__} gives "
                f"none of {', '.join(fields)}; set method.distillation.{name}=0"
            )
        of_row, terms = torch.stack(layers).mean(0), self.row_terms(batch)
        return (of_row * terms).sum() / terms.sum()


def open_attention(model: nn.Module, plan: Distillation) -> None:
    """Let a model give its attention probabilities, where these are compared.

    Fused attention has none; qexp's own gives them as softmax made them, before dropout and quantizers.
    """
    if plan.attention:
        AttentionSwitch(model)


def divergence(ours: Tensor, theirs: Tensor, temperature: float, counts: Tensor | None = None) -> Tensor:
    """``T^2 * KL(softmax(theirs / T) || softmax(ours / T))`` over the last dimension, [...].

    Args:
        ours: Logits, float32 [..., k].
        theirs: The same.
        temperature: T.
        counts: False for what has no probability at all; broadcasts to the logits. None: all count.
    """
    sides = [ours / temperature, theirs / temperature]
    if counts is not None:  # the lowest number, as 0 times infinity is no number
        sides = [side.masked_fill(~counts, torch.finfo(side.dtype).min) for side in sides]
    student, teacher = (functional.log_softmax(side, dim=-1) for side in sides)
    apart = functional.kl_div(student, teacher, log_target=True, reduction="none").sum(-1)
    return temperature**2 * apart


def hidden_distance(ours: Tensor, theirs: Tensor, counts: Tensor) -> Tensor:
    """Mean squared error of a layer, over the width and a row's tokens that count, float32 [B].

    Args:
        ours: Hidden states [B, T, width].
        theirs: The same.
        counts: Which tokens do, bool [B, T].
    """
    return _of_rows((ours.float() - theirs.float()).square().mean(-1), counts)


def attention_distance(ours: Tensor, theirs: Tensor, counts: Tensor) -> Tensor:
    """Divergence of a layer's attention, a mean over heads and a row's queries that count, float32 [B].

    Args:
        ours: Probabilities [B, heads, T, S].
        theirs: The same.
        counts: Which queries do, bool [B, T].
    """
    student, teacher = ours.float(), theirs.float()
    least = torch.finfo(torch.float32).tiny  # softmax may give 0, whose logarithm would be no number
    apart = torch.special.xlogy(teacher, teacher) - teacher * student.clamp_min(least).log()
    return _of_rows(apart.sum(-1).mean(1), counts)


def _of_rows(values: Tensor, counts: Tensor) -> Tensor:
    """Mean of each row [B] over the places that count, of [B, T]."""
    return values.masked_fill(~counts, 0).sum(1) / counts.sum(1)


def _counting(batch: Batch, side: str) -> Tensor:
    """Which tokens of a side are no padding, bool [B, T]."""
    return batch["labels"] != IGNORED if side == "target" else batch["attention_mask"] != 0


COMPARED: Mapping[str, tuple[Mapping[str, str], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "hidden": (
        {
            "hidden_states": "source",
            "encoder_hidden_states": "source",
            "decoder_hidden_states": "target",
        },
        hidden_distance,
    ),
    "attention": (
        {
            "attentions": "source",
            "encoder_attentions": "source",
            "decoder_attentions": "target",
            "cross_attentions": "target",
        },
        attention_distance,
    ),
}
"""By weight: fields of transformers' outputs with the side of their tokens or queries, and the distance."""
