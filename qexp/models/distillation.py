"""Knowledge distillation from the run's own FP32 model.

The loss of a batch is the sum of five terms, each with a weight in :class:`qexp.config.Distillation`:

- ``labels``: the task's own loss.
- ``logits``: ``T^2 * KL(softmax(teacher / T) || softmax(student / T))`` (Hinton, Vinyals and Dean,
  "Distilling the Knowledge in a Neural Network", 2015; the square keeps the gradient's size as T grows); for
  a regression the squared error of the outputs. It is a mean over the terms of the task's own loss: rows,
  starts and ends of answers, or target tokens.
- ``hidden``: the mean squared error of hidden states, over embeddings and all layers (TinyBERT, Jiao et al.
  2020; TernaryBERT, Zhang et al. 2020).
- ``attention``: ``KL(teacher || student)`` of attention probabilities, over all layers, heads and queries
  (MiniLM, Wang et al. 2020, which uses the last layer only).
- ``similarity``: ``KL(teacher || student)`` of similarity distributions of vectors (SEED, Fang et al. 2021,
  "SEED: Self-supervised Distillation for Visual Representation"; CompRess, Koohpayegani et al. 2020): the
  softmax of a text's cosines with other texts, divided by a temperature. The other texts are those of the
  batch, as in-batch negatives of contrastive training are (Karpukhin et al. 2020), where the papers keep a
  queue. Where a batch is split into parts, they are those of the part.

``hidden`` and ``attention`` are first averaged per row over its non-padding tokens; the means of the rows are
then averaged, weighted by the number of terms of each row in the task's own loss. So the mean over a part of
a batch times the part's share, averaged over the parts, is the mean over the batch: see
:class:`qexp.data.microbatches.MicroBatches`.
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
from qexp.quant.insertion.attention import KEEPS_PROBABILITIES
from qexp.quant.insertion.hooks import AttentionSwitch

Distance = Callable[[Tensor, Tensor, Batch, float], Tensor]
"""Function from logits of student and teacher, a batch and a temperature to their distance, a scalar."""
Terms = Callable[[Batch], Tensor]
"""Function from a batch to the number of terms of each row in the task's own loss, [B]."""


class Teacher:
    """Frozen FP32 model in evaluation mode, and the distillation loss that it defines for a student.

    It is not an ``nn.Module``, so that it adds nothing to the parameters, state and checkpoints of a student
    that holds it. The teacher runs in the precision of the student; outputs are compared in FP32.

    Args:
        model: FP32 model, which is modified and must not be used elsewhere.
        plan: Weights of the loss terms, and the temperature.
        distance: Distance of logits for the kind of task.
        loss_counts_per_row: Number of terms of each row in the task's own loss.
    """

    def __init__(
        self, model: PreTrainedModel, plan: Distillation, distance: Distance, loss_counts_per_row: Terms
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.plan, self.distance, self.loss_counts_per_row = plan, distance, loss_counts_per_row
        self.inputs = model_inputs(model)
        open_attention(model, plan)

    @property
    def asked(self) -> dict[str, bool]:
        """Arguments that make a forward pass of either model return what is compared besides logits."""
        weights = {"output_hidden_states": self.plan.hidden, "output_attentions": self.plan.attention}
        return {name: True for name, weight in weights.items() if weight}

    def to(self, device: torch.device) -> None:
        """Move the teacher to ``device``."""
        nn.Module.to(self.model, device)

    def loss(self, output: Any, batch: Batch, own: Callable[[Tensor, Batch], Tensor]) -> Tensor:
        """Return the weighted sum of all loss terms over a part of a batch, a scalar.

        Args:
            output: Output of the student, called with :attr:`asked`.
            batch: Input of the student.
            own: The task's own loss, a function of float32 logits and the batch.

        Raises:
            TrainingError: If the model does not return the hidden states or attentions to compare.
        """
        with torch.no_grad():
            target = self.model(**arguments(self.model, self.inputs, batch), **self.asked)
        logits, plan = logits_of(output).float(), self.plan
        losses: list[tuple[float, Callable[[], Tensor]]] = [
            (plan.labels, lambda: own(logits, batch)),
            (plan.logits, lambda: self.distance(logits, logits_of(target).float(), batch, plan.temperature)),
            (plan.hidden, lambda: self._layer_distance("hidden", output, target, batch)),
            (plan.attention, lambda: self._layer_distance("attention", output, target, batch)),
            (
                plan.similarity,
                lambda: similarity_distance(logits, logits_of(target).float(), plan.similarity_temperature),
            ),
        ]
        # DDP waits for a gradient of every parameter: 0 * logits gives the head one if no term uses logits.
        return torch.stack([0 * logits.sum(), *(weight * loss() for weight, loss in losses if weight)]).sum()

    def _layer_distance(self, name: str, student: Any, teacher: Any, batch: Batch) -> Tensor:
        """Return the distance of the student's layers from the teacher's.

        It is a mean over the layers, and over the rows weighted by their number of loss terms.
        """
        fields, distance = COMPARED[name]
        layers = [
            distance(one, other, _token_mask(batch, side))
            for field, side in fields.items()
            for one, other in zip(student.get(field) or (), teacher.get(field) or (), strict=True)
        ]
        if not layers:
            raise TrainingError(
                f"method.distillation.{name}={getattr(self.plan, name):g}: {type(self.model).__name__} gives "
                f"none of {', '.join(fields)}; set method.distillation.{name}=0"
            )
        per_row, counts = torch.stack(layers).mean(0), self.loss_counts_per_row(batch)
        return (per_row * counts).sum() / counts.sum()


def open_attention(model: nn.Module, plan: Distillation) -> None:
    """Make a model return attention probabilities if ``plan`` compares them.

    Fused attention does not compute them; qexp's attention returns them as they leave softmax, before dropout
    and quantizers.
    """
    if plan.attention:
        AttentionSwitch(model)
        for module in model.modules():
            setattr(module, KEEPS_PROBABILITIES, True)


def divergence(student: Tensor, teacher: Tensor, temperature: float, counts: Tensor | None = None) -> Tensor:
    """Return ``T^2 * KL(softmax(teacher / T) || softmax(student / T))`` over the last dimension, [...].

    Args:
        student: Logits of the student, float32 [..., k].
        teacher: Logits of the teacher, float32 [..., k].
        temperature: T.
        counts: Mask that is False for entries of probability zero; broadcasts to the logits. None counts all.
    """
    sides = [student / temperature, teacher / temperature]
    if counts is not None:  # the lowest finite number, as 0 * inf is NaN
        sides = [side.masked_fill(~counts, torch.finfo(side.dtype).min) for side in sides]
    student, teacher = (functional.log_softmax(side, dim=-1) for side in sides)
    divergences = functional.kl_div(student, teacher, log_target=True, reduction="none").sum(-1)
    return temperature**2 * divergences


def similarity_distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the mean divergence of each text's similarity distribution over the others, a scalar.

    A text is not compared with itself, so one text alone has none, and the result is 0.

    Args:
        student: Vectors of the student, of norm 1, float32 [B, D].
        teacher: Vectors of the teacher, likewise.
        temperature: What cosines are divided by.
    """
    if len(student) < 2:
        return 0 * student.sum()
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    student, teacher = (side @ side.T / temperature for side in (student, teacher))
    return divergence(student, teacher, 1.0, others).mean()


def hidden_distance(student: Tensor, teacher: Tensor, counts: Tensor) -> Tensor:
    """Return the mean squared error of a layer, over the width and each row's counted tokens, float32 [B].

    Args:
        student: Hidden states of the student, [B, T, width].
        teacher: Hidden states of the teacher, [B, T, width].
        counts: Which tokens count, bool [B, T].
    """
    return _row_means((student.float() - teacher.float()).square().mean(-1), counts)


def attention_distance(student: Tensor, teacher: Tensor, counts: Tensor) -> Tensor:
    """Return the divergence of a layer's attention, a mean over heads and counted queries, float32 [B].

    Args:
        student: Attention probabilities of the student, [B, heads, T, S].
        teacher: Attention probabilities of the teacher, [B, heads, T, S].
        counts: Which queries count, bool [B, T].
    """
    student, teacher = student.float(), teacher.float()
    least = torch.finfo(torch.float32).tiny  # softmax may return 0, whose logarithm is infinite
    divergences = torch.special.xlogy(teacher, teacher) - teacher * student.clamp_min(least).log()
    return _row_means(divergences.sum(-1).mean(1), counts)


def _row_means(values: Tensor, counts: Tensor) -> Tensor:
    """Return the mean of each row, [B], over the counted positions of [B, T]."""
    return values.masked_fill(~counts, 0).sum(1) / counts.sum(1)


def _token_mask(batch: Batch, side: str) -> Tensor:
    """Return which tokens of a side are not padding, bool [B, T]."""
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
"""By name of the weight: fields of transformers' outputs with the side of their tokens, and the distance."""
