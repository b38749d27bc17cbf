"""Base class of the trained modules: optimizer, learning rate schedule, and loss of a micro-batch."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qexp.config import ContinuedTraining, Finetune, NoFinetune, Qat, Schedule
from qexp.data.microbatches import Batch, BatchSplit
from qexp.models.distillation import Teacher
from qexp.models.loading import arguments, logits_of, model_inputs
from qexp.quant.insertion.quantized_model import QuantizedModel
from qexp.quant.insertion.training_mode import delay_head


@dataclass(frozen=True)
class Optimization:
    """Hyperparameters of AdamW, with linear warm-up followed by the decay of ``schedule``."""

    learning_rate: float
    weight_decay: float
    warmup: float
    """Fraction of the steps over which the learning rate rises."""
    steps: int
    seed: int
    range_learning_rate: float = 0.0
    schedule: Schedule = "linear"
    beta2: float = 0.999
    previous_steps: int = 0
    """Steps of the training that this one continues, in the schedule of both."""
    head_delay: int = 0
    """Steps for which layers outside the base model are not quantized."""
    warmup_steps: int | None = None
    """Steps over which the learning rate rises, in place of the fraction; of a training that continues
    another, the steps of that one."""

    @classmethod
    def of(cls, plan: Finetune, steps: int, seed: int) -> Self:
        """Return the optimization of a fine-tuning section."""
        return cls(
            learning_rate=plan.learning_rate,
            weight_decay=plan.weight_decay,
            warmup=plan.warmup,
            steps=steps,
            seed=seed,
            schedule=plan.schedule,
            beta2=plan.beta2,
            warmup_steps=plan.warmup_steps,
        )

    @classmethod
    def continuing(
        cls,
        method: ContinuedTraining,
        plan: Finetune | NoFinetune,
        steps: int,
        *,
        seed: int,
        previous_steps: int,
        planned_steps: int | None = None,
    ) -> Self:
        """Return the optimization of a continued training, with the settings of fine-tuning where null.

        ``planned_steps`` are those of the schedule of the previous training, which may have ended early.
        """
        assert method.learning_rate  # null fields were resolved by Experiment
        ranges = method.range_learning_rate if isinstance(method, Qat) else None
        decay = method.weight_decay
        warmup = plan.warmup if method.warmup is None else method.warmup
        return cls(
            learning_rate=method.learning_rate,
            weight_decay=plan.weight_decay if decay is None else decay,
            warmup=warmup,
            steps=steps,
            seed=seed,
            range_learning_rate=ranges or 0.0,
            schedule=plan.schedule
            if method.schedule is None or method.schedule == "continued"
            else method.schedule,
            beta2=plan.beta2,
            previous_steps=previous_steps,
            warmup_steps=_previous_rise(plan, warmup, planned_steps) if previous_steps else None,
            head_delay=method.head_delay if isinstance(method, Qat) else 0,
        )

    def factor(self, step: int) -> float:
        """Return the learning rate at ``step``, counted from 0, as a fraction of the peak rate.

        ``inverse_sqrt`` is equation 3 of Vaswani et al., "Attention Is All You Need" (2017), divided by its
        peak: ``min(s / w, sqrt(w / s))`` at step s, counted from 1, with w steps of warm-up. After a previous
        training, steps and w are those of that training.
        """
        if self.previous_steps:
            rise = self.warmup_steps or max(1, round(self.warmup * self.previous_steps))
            return math.sqrt(rise / (self.previous_steps + step + 1))
        rise = self.warmup_steps or max(1, round(self.warmup * self.steps))
        warms_up = bool(self.warmup or self.warmup_steps)
        if warms_up and step < rise:
            return (step + 1) / rise
        if self.schedule == "inverse_sqrt":
            return math.sqrt(rise / (step + 1))
        rise = rise if warms_up else 0
        left = max(0.0, (self.steps - step) / max(1, self.steps - rise))
        return (1 - math.cos(math.pi * left)) / 2 if self.schedule == "cosine" else left


def _previous_rise(plan: Finetune | NoFinetune, warmup: float, planned_steps: int | None) -> int | None:
    """Return the steps of warm-up of the previous training; None where its number of steps tells them."""
    if isinstance(plan, Finetune) and plan.warmup_steps:
        return plan.warmup_steps
    return planned_steps and max(1, round(warmup * planned_steps))


class TaskModule(pl.LightningModule):
    """Lightning module that trains a model, and its learned ranges, on :meth:`loss`.

    With a teacher, :meth:`qexp.models.distillation.Teacher.loss` adds its terms to the loss.

    Batches are split into parts (:class:`qexp.data.microbatches.MicroBatches`). For any number of parts and
    any precision, weights, ranges, their gradients and the loss are FP32; only autocast lowers the precision
    of a matmul.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        optimization: Optimization,
        quantization: QuantizedModel | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.quantization = quantization
        self.teacher = teacher
        self.inputs = model_inputs(model)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits of a padded batch, in the form of :func:`qexp.models.loading.logits_of`."""
        with self._padding(batch):
            return logits_of(self.model(**arguments(self.model, self.inputs, batch)))

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss over a part of a batch, a scalar; ``logits`` are float32."""
        raise NotImplementedError

    def evaluation_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss over held-out rows, a scalar; ``logits`` are float32."""
        return self.loss(logits, batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss times the share of the part.

        Lightning divides by the number of parts per process and DDP by the number of processes; the share
        accounts for both.
        """
        return self._loss(batch) * batch["share"]

    def _loss(self, batch: Batch) -> Tensor:
        if self.teacher is None:
            return self.loss(self(batch).float(), batch)
        with self._padding(batch):
            output = self.model(**arguments(self.model, self.inputs, batch), **self.teacher.asked)
        return self.teacher.loss(output, batch, self.loss)

    def on_train_start(self) -> None:
        """Move the teacher to the device of the model; it is no submodule, so Lightning does not."""
        if self.teacher is not None:
            self.teacher.to(self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Quantize the head once its delay is over, and seed dropout by step and part.

        A resumed training then draws the same masks as an uninterrupted one, and each part draws its own.
        """
        trainer = self.trainer
        parts = BatchSplit(trainer.accumulate_grad_batches, trainer.world_size, trainer.global_rank)
        if self.quantization is not None and self.optimization.head_delay:
            delay_head(self.quantization, self.optimization.head_delay, self.global_step)
        step = self.optimization.seed * 1_000_003 + self.global_step
        torch.manual_seed(step * parts.count + parts.number(batch_idx))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients.

        Lightning's own implementation refuses a fused optimizer in mixed precision.
        """
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, gradient_clip_val or math.inf)

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule.

        Biases, normalization weights and ranges have no weight decay; ranges have their own learning rate.
        AdamW is not fused in FP16: a fused one unscales the gradients itself, after they were clipped.
        """
        plan = self.optimization
        fused = self.trainer.precision != "16-mixed"
        optimizer = torch.optim.AdamW(
            self._parameter_groups(), lr=plan.learning_rate, betas=(0.9, plan.beta2), fused=fused
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, plan.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _padding(self, batch: Batch) -> AbstractContextManager[None]:
        """Exclude the padding of a batch from the updates of EMA ranges."""
        if self.quantization is None or not self.quantization.masks_padding:
            return nullcontext()
        return self.quantization.padding(batch["attention_mask"], batch.get("target_mask"))

    def _parameter_groups(self) -> list[dict[str, Any]]:
        plan = self.optimization
        ranges = [] if self.quantization is None else list(self.quantization.parameters())
        range_ids = {id(parameter) for parameter in ranges}
        weights = [p for p in self.model.parameters() if p.requires_grad and id(p) not in range_ids]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": plan.weight_decay},
            {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
            {"params": ranges, "weight_decay": 0.0, "lr": plan.range_learning_rate},
        ]
        return [group for group in groups if group["params"]]
