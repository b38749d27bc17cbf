"""The two trainings, as plans that are small enough to be sent to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.torch import load_file, save_file

from qexp.artifacts import Encoder, Ranges, Tokens, Trained
from qexp.config import AnyCalibrator, Finetuned, Form, Qat, Schooling, Task, Training
from qexp.data.batches import train_batches
from qexp.data.checkpoints import Blueprint, Checkpoint
from qexp.lit.encoder import load_saved, save, set_dropout
from qexp.lit.families import family_of
from qexp.lit.steps import Parts, Steps
from qexp.lit.student import Optimization, Student
from qexp.quant.insert import Quantization, insert


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
class QuantizationAware:
    """A calibrated encoder with its quantizers in the loop."""

    tokens: Tokens
    encoder: Encoder
    ranges: Ranges
    task: Task
    form: Form
    method: Qat
    training: Training | Finetuned
    """Batches, decay and warm-up of the fine-tuning."""
    schooling: Schooling
    recalibrator: AnyCalibrator | None = None
    """What finds the ranges of weights anew, at the end; None leaves them as training did."""

    @property
    def title(self) -> str:
        """For messages and the progress bar."""
        return f"QAT {self.task.name} {self.form.quant.name}"

    def steps(self, parts: Parts) -> Steps:
        """All steps, with the parts of one process."""
        size, epochs = self.training.batch_size, self.method.epochs
        return _steps(self.tokens, self.task, size, epochs, self.schooling, parts)

    def module(self, steps: int, parts: Parts) -> Student:
        """The encoder with ranges, which are learned, follow the batches, or are fixed."""
        model = load_saved(self.encoder.model)
        set_dropout(model, self.method.dropout)
        quantization = insert(model, self.form)
        quantization.load_ranges(load_file(self.ranges.file))
        quantization.split(parts.count)
        if self.method.ranges == "learned":
            quantization.learn(zero_points=self.method.zero_points == "learned")
        elif self.method.ranges == "ema":
            quantization.follow(self.method.range_decay)
        else:
            quantization.freeze()
        return family_of(self.task).student(model, self._optimization(steps), quantization)

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

    def _optimization(self, steps: int) -> Optimization:
        method, training = self.method, self.training
        assert method.learning_rate  # null fields were resolved by Experiment
        assert method.range_learning_rate
        return Optimization.of(
            training, method.learning_rate, steps, self.schooling.seed, method.range_learning_rate
        )


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
