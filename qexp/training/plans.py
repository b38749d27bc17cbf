"""The trainings, as plans that are small enough to be sent to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from qexp.artifacts.types import Encoder, Ranges, Tokens, Trained
from qexp.config import AnyCalibrator, Finetuned, Form, Further, Qat, Schooling, Task, Training
from qexp.data.batches import train_batches
from qexp.data.checkpoints import Blueprint, Checkpoint
from qexp.data.microbatches import Parts, Steps
from qexp.models.distillation import Teacher, open_attention
from qexp.models.loading import load_saved, save, set_dropout
from qexp.quant.insertion.insert import Quantization, insert
from qexp.tasks import family_of
from qexp.tasks.base import Family
from qexp.tasks.module import Optimization, Student


class Course(Protocol):
    """A training to be: every process of it makes the same module from it, and its own parts of the steps."""

    @property
    def title(self) -> str:
        """For messages and the progress bar."""

    @property
    def schooling(self) -> Schooling:
        """What all trainings have in common."""

    def steps(self, parts: Parts) -> Steps:
        """All steps, with the parts of one process."""

    def module(self, steps: int, parts: Parts) -> Student:
        """What is trained, for so many steps."""

    def save(self, module: Student, folder: Path) -> Mapping[str, Any]:
        """Leave the trained module in the folder of the artifact; what is worth a word in its facts."""


@dataclass(frozen=True)
class FineTuning:
    """A pretrained model, or one from scratch, in FP32 weights."""

    tokens: Tokens
    start: Checkpoint | Blueprint
    task: Task
    training: Training
    schooling: Schooling

    @property
    def title(self) -> str:
        """For messages and the progress bar."""
        return f"fine-tune {self.task.name}"

    def steps(self, parts: Parts) -> Steps:
        """All steps, with the parts of one process."""
        plan = self.training
        return _steps(self.tokens, self.task, plan.batch_size, plan.epochs, self.schooling, parts)

    def module(self, steps: int, parts: Parts) -> Student:
        """The encoder with a head drawn from the seed."""
        plan, seed = self.training, self.schooling.seed
        family = family_of(self.task)
        model = family.pretrained(self.start, self.tokens, seed)
        return family.student(model, Optimization.of(plan, plan.learning_rate, steps, seed))

    def save(self, module: Student, folder: Path) -> dict[str, Any]:
        """As transformers saves a model."""
        save(module.model.cpu(), Encoder(folder, "").model)
        return {}


@dataclass(frozen=True)
class Continued:
    """The FP32 model, trained on: what quantization-aware training does, without quantizers."""

    tokens: Tokens
    encoder: Encoder
    task: Task
    method: Further
    training: Training | Finetuned
    """Batches, decay and warm-up of the fine-tuning."""
    schooling: Schooling

    @property
    def title(self) -> str:
        """For messages and the progress bar."""
        return f"control {self.task.name}"

    def steps(self, parts: Parts) -> Steps:
        """All steps, with the parts of one process."""
        size, epochs = self.training.batch_size, self.method.epochs
        return _steps(self.tokens, self.task, size, epochs, self.schooling, parts)

    def module(self, steps: int, parts: Parts) -> Student:
        """The model as it is."""
        return self._student(self._model(), steps)

    def save(self, module: Student, folder: Path) -> dict[str, Any]:
        """As transformers saves a model."""
        save(module.model.cpu(), Encoder(folder, "").model)
        return {}

    def _model(self) -> PreTrainedModel:
        model = load_saved(self.encoder.model)
        set_dropout(model, self.method.dropout)
        open_attention(model, self.method.distillation)
        return model

    def _student(
        self, model: PreTrainedModel, steps: int, quantization: Quantization | None = None
    ) -> Student:
        family, method = family_of(self.task), self.method
        assert method.learning_rate  # null fields were resolved by Experiment
        ranges = method.range_learning_rate if isinstance(method, Qat) else None
        optimization = Optimization.of(
            self.training, method.learning_rate, steps, self.schooling.seed, ranges or 0.0
        )
        return family.student(model, optimization, quantization, self._teacher(family))

    @property
    def _origin(self) -> Encoder:
        """The FP32 model of the run."""
        return self.encoder

    def _teacher(self, family: Family) -> Teacher | None:
        """The model that all began with, where anything is learned from it."""
        plan = self.method.distillation
        if not plan.enabled:
            return None
        return Teacher(load_saved(self._origin.model), plan, family.distance, family.row_terms)


@dataclass(frozen=True)
class QuantizationAware(Continued):
    """A calibrated encoder with its quantizers in the loop."""

    method: Qat
    teacher: Encoder
    """The FP32 model, of which ``encoder`` may be a refinement."""
    ranges: Ranges
    form: Form
    recalibrator: AnyCalibrator | None = None
    """What finds the ranges of weights anew, at the end; None leaves them as training did."""

    @property
    def title(self) -> str:
        """For messages and the progress bar."""
        return f"QAT {self.task.name} {self.form.quant.name}"

    @property
    def _origin(self) -> Encoder:
        return self.teacher

    def module(self, steps: int, parts: Parts) -> Student:
        """The encoder with ranges, which are learned, follow the batches, or are fixed."""
        model = self._model()
        quantization = insert(model, self.form)
        quantization.load_ranges(load_file(self.ranges.file))
        quantization.split(parts.count)
        if self.method.ranges == "learned":
            quantization.learn(zero_points=self.method.zero_points == "learned")
        elif self.method.ranges == "ema":
            quantization.follow(self.method.range_decay)
        else:
            quantization.freeze()
        return self._student(model, steps, quantization)

    def save(self, module: Student, folder: Path) -> dict[str, Any]:
        """Plain float weights as transformers saves them, and the final ranges beside them."""
        quantization, out = module.quantization, Trained(folder, "")
        assert isinstance(quantization, Quantization)
        module.cpu()
        if self.recalibrator is not None:
            quantization.freeze()
            quantization.calibrate_weights(self.recalibrator)
        save_file(quantization.ranges(), out.file)
        quantization.remove()
        save(module.model, out.model)
        return quantization.describe()


def _steps(
    tokens: Tokens, task: Task, batch_size: int, epochs: float, schooling: Schooling, parts: Parts
) -> Steps:
    """All batches of a training in order, of rows that are drawn by the seed."""
    family, seed = family_of(task), schooling.seed
    split = family.split(tokens.split(task.train))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(split))[: schooling.train_rows])
    batches = train_batches(split.lengths[chosen], batch_size=batch_size, epochs=epochs, seed=seed)
    rows = [chosen[batch] for batch in batches[: schooling.train_steps]]
    collate = partial(family.collate, split, pad_id=tokens.pad_id)
    return Steps(rows, collate, parts, partial(family.terms, split))
