"""What all trained modules have in common: optimizer, schedule, and a batch in parts."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qexp.config import Finetuned, Schedule, Training
from qexp.data.microbatches import Batch, Parts
from qexp.models.distillation import Teacher
from qexp.models.loading import arguments, logits_of, model_inputs
from qexp.quant.insertion.quantized_model import Quantization


@dataclass(frozen=True)
class Optimization:
    """AdamW under a linear warm-up, and a decay by the schedule."""

    learning_rate: float
    weight_decay: float
    warmup: float
    """Share of the steps over which the rate rises."""
    steps: int
    seed: int
    range_learning_rate: float = 0.0
    schedule: Schedule = "linear"
    beta2: float = 0.999

    @classmethod
    def of(
        cls,
        plan: Training | Finetuned,
        learning_rate: float,
        steps: int,
        seed: int,
        range_learning_rate: float = 0.0,
    ) -> Self:
        """What a plan of fine-tuning says, at the rates of this training."""
        return cls(
            learning_rate, plan.weight_decay, plan.warmup, steps, seed, range_learning_rate, plan.schedule,
            plan.beta2,
        )  # fmt: skip

    def factor(self, step: int) -> float:
        """Share of the peak rate at a step, counted from 0.

        ``inverse_sqrt`` is equation 3 of Vaswani et al., "Attention Is All You Need" (2017), over its peak:
        ``min(s / w, sqrt(w / s))`` at step s of those counted from 1, with w steps of warm-up.
        """
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return (step + 1) / rise
        if self.schedule == "inverse_sqrt":
            return math.sqrt(rise / (step + 1))
        return max(0.0, (self.steps - step) / max(1, self.steps - rise))


class Student(pl.LightningModule):
    """A model, trained by its :meth:`loss`; ranges that are learned are trained beside the weights.

    With a teacher, the loss is what :meth:`qexp.models.distillation.Teacher.loss` makes of it.

    Batches come in parts (:class:`qexp.data.microbatches.Steps`). Whatever their number and the precision,
    weights, ranges, their gradients and the loss are FP32; autocast is what makes a matmul narrower.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        optimization: Optimization,
        quantization: Quantization | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.quantization = quantization
        self.teacher = teacher
        self.inputs = model_inputs(model)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a padded batch, whatever the head."""
        with self._padding(batch):
            return logits_of(self.model(**arguments(self.model, self.inputs, batch)))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean loss over the part of the batch, a number; ``logits`` are float32."""
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss times the part's share.

        Lightning divides by the parts of a process and DDP by the processes; the share is made for that.
        """
        return self._loss(batch) * batch["share"]

    def _loss(self, batch: Batch) -> Tensor:
        if self.teacher is None:
            return self.loss(self(batch).float(), batch)
        with self._padding(batch):
            output = self.model(**arguments(self.model, self.inputs, batch), **self.teacher.asked)
        return self.teacher.loss(output, batch, self.loss)

    def on_train_start(self) -> None:
        """Take the teacher along to the device."""
        if self.teacher is not None:
            self.teacher.to(self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Tie dropout to the step and the part: a resumed training draws the same masks, parts others."""
        trainer = self.trainer
        parts = Parts(trainer.accumulate_grad_batches, trainer.world_size, trainer.global_rank)
        step = self.optimization.seed * 1_000_003 + self.global_step
        torch.manual_seed(step * parts.count + parts.number(batch_idx))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients, which Lightning refuses to a fused optimizer in mixed precision."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, gradient_clip_val or math.inf)

    def configure_optimizers(self) -> Any:
        """AdamW; biases, norms and ranges do not decay; ranges have their own rate.

        Not fused in FP16: a fused AdamW undoes the loss scaling itself, after the gradient is clipped.
        """
        plan = self.optimization
        fused = self.trainer.precision != "16-mixed"
        optimizer = torch.optim.AdamW(
            self._parameter_groups(), lr=plan.learning_rate, betas=(0.9, plan.beta2), fused=fused
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, plan.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _padding(self, batch: Batch) -> AbstractContextManager[None]:
        """Tells ranges that follow batches what of this one is padding."""
        if self.quantization is None or not self.quantization.following:
            return nullcontext()
        return self.quantization.padding(batch["attention_mask"], batch.get("target_mask"))

    def _parameter_groups(self) -> list[dict[str, Any]]:
        plan = self.optimization
        ranges = [] if self.quantization is None else list(self.quantization.parameters())
        known = {id(parameter) for parameter in ranges}
        weights = [p for p in self.model.parameters() if p.requires_grad and id(p) not in known]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": plan.weight_decay},
            {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
            {"params": ranges, "weight_decay": 0.0, "lr": plan.range_learning_rate},
        ]
        return [group for group in groups if group["params"]]
