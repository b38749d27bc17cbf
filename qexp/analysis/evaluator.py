"""A run's model on its evaluation rows, measured again and again with other quantizers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qexp.analysis.find_run import StageName, experiment_of, folder_of, stages_of, subject_of
from qexp.artifacts.types import Encoder, Ranges, Tokens
from qexp.config import Machine, Task
from qexp.context import Runtime
from qexp.models.inference import load_quantized
from qexp.quant.insertion.insert import Quantization
from qexp.records.record import Record
from qexp.tasks import family_of
from qexp.tasks.base import Run

Accelerator = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Measurement:
    """One evaluation of the first evaluation split."""

    score: float | None
    """The task's primary metric in percent; None where it is undefined."""
    logits: NDArray[np.float32]
    """What the predictions were read off, [rows, k]."""
    broken: int
    """Rows with logits that are no numbers."""

    def noise(self, reference: Measurement) -> float:
        """Power of the difference to the reference by that of the reference; infinite with a broken row."""
        if self.broken or reference.broken:
            return math.inf
        signal, ours = reference.logits.astype(np.float64), self.logits.astype(np.float64)
        power = float(np.square(signal).sum())
        error = float(np.square(ours - signal).sum())
        return error / power if power else (math.inf if error else 0.0)


def decibels(noise: float) -> float | None:
    """Signal over noise in dB; None where there is no noise, or nothing else."""
    return -10 * math.log10(noise) if 0 < noise < math.inf else None


@dataclass(frozen=True)
class Rows:
    """Evaluation rows of a run, and how its kind of task is scored."""

    task: Task
    tokens: Tokens
    limit: int | None
    """The first so many rows; None is all."""

    @property
    def split(self) -> str:
        """The split that stands for the task."""
        return next(iter(self.task.evaluation.values()))

    @property
    def count(self) -> int:
        """Number of rows."""
        total = int(self.tokens.facts["rows"][self.split])
        return min(total, self.limit or total)

    def first(self, limit: int | None) -> Rows:
        """At most so many of them."""
        limits = [each for each in (limit, self.limit) if each is not None]
        return replace(self, limit=min(limits, default=None))

    def measure(self, run: Run, move: Callable[..., None]) -> Measurement:
        """Predict and score; ``move`` is told of rows."""
        family = family_of(self.task)
        found = family.predict(run, self.tokens, self.split, self.limit, move)
        score = None if found.broken else family.score(found)[self.task.metrics[0]]
        return Measurement(score, found.logits, found.broken)


@dataclass(frozen=True)
class Bench:
    """A quantized model of the store, with its ranges, and its rows."""

    quantization: Quantization
    rows: Rows
    rt: Runtime

    def measure(self, move: Callable[..., None]) -> Measurement:
        """With the quantizers as they are now."""
        run = family_of(self.rows.task).runner(self.quantization.model, self.rt)
        return self.rows.measure(run, move)


def bench_of(
    record: Record, outputs: Path, stage: StageName | None, limit: int | None, accelerator: Accelerator | None
) -> Bench:
    """The model that a stage of a run left; without a stage, its last one.

    Raises:
        QuantizationError: the run quantized nothing, or not in that stage.
        StoreError: an artifact is gone or damaged, or the Record is of another version.
        ConfigError: there is no such accelerator here.
    """
    subject = subject_of(record, outputs, stage)
    rt = runtime_of(record, outputs, accelerator)
    rows = rows_of(record, outputs).first(limit)
    weights, ranges = (folder_of(record, name, outputs) for name in stages_of(record, subject.stage))
    _, quantization = load_quantized(Encoder(weights, ""), subject.form, Ranges(ranges, ""), rt)
    assert quantization is not None
    return Bench(quantization, rows, rt)


def rows_of(record: Record, outputs: Path) -> Rows:
    """A run's evaluation rows, as many as it evaluated itself."""
    experiment = experiment_of(record)
    tokens = Tokens(folder_of(record, "1-tokens", outputs), "")
    return Rows(experiment.task, tokens, experiment.budget.evaluation_rows)


def runtime_of(
    record: Record, outputs: Path, accelerator: Accelerator | None, threads: int | None = None
) -> Runtime:
    """The machine as the run was told of it, but for what else is asked for."""
    machine: Machine = experiment_of(record).machine
    asked = {"accelerator": accelerator, "threads": threads}
    return Runtime.at(outputs, machine.model_copy(update={name: of for name, of in asked.items() if of}))
