"""Repeated evaluation of a run's model on its evaluation rows, with varying quantizers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qexp.analysis.decisions import decided_task
from qexp.analysis.find_run import (
    QuantizedStage,
    experiment_of,
    folder_of,
    stages_of,
    subject_of,
)
from qexp.analysis.run_models import runtime_of
from qexp.artifacts.types import Tokens
from qexp.config import Task
from qexp.context import RunContext
from qexp.models.inference import load_quantized
from qexp.naming import StageName
from qexp.quant.insertion.insert import QuantizedModel
from qexp.records.record import Record
from qexp.tasks import adapter_for
from qexp.tasks.base import ForwardFn

Accelerator = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Measurement:
    """Result of one evaluation of the first evaluation split."""

    score: float | None
    """The task's primary metric in percent; None if it is undefined."""
    logits: NDArray[np.float32]
    """Logits, or scores, that the predictions derive from, [rows, k]."""
    broken: int
    """Number of rows with NaN or infinite logits."""

    def noise(self, reference: Measurement) -> float:
        """Return the noise-to-signal power ratio of the logits with respect to a reference.

        It is infinite if either measurement has a broken row.
        """
        if self.broken or reference.broken:
            return math.inf
        signal, logits = reference.logits.astype(np.float64), self.logits.astype(np.float64)
        power = float(np.square(signal).sum())
        error = float(np.square(logits - signal).sum())
        return error / power if power else (math.inf if error else 0.0)


def decibels(noise: float) -> float | None:
    """Convert a noise-to-signal ratio to an SQNR in dB; None if the ratio is 0 or infinite."""
    return -10 * math.log10(noise) if 0 < noise < math.inf else None


@dataclass(frozen=True)
class EvaluationRows:
    """Evaluation rows of a run, with the task that scores them."""

    task: Task
    tokens: Tokens
    limit: int | None
    """Number of rows to use, from the start of the split; None for all."""

    @property
    def split(self) -> str:
        """Name of the first evaluation split, which represents the task."""
        return next(iter(self.task.evaluation.values()))

    @property
    def count(self) -> int:
        total = int(self.tokens.facts["rows"][self.split])
        return min(total, self.limit or total)

    def first(self, limit: int | None) -> EvaluationRows:
        """Return at most the first ``limit`` of these rows, or all of them if None."""
        limits = [each for each in (limit, self.limit) if each is not None]
        return replace(self, limit=min(limits, default=None))

    def measure(self, run: ForwardFn, advance: Callable[..., None]) -> Measurement:
        """Predict and score the rows; ``advance`` receives the number of rows after each batch."""
        adapter = adapter_for(self.task)
        predictions = adapter.predict(run, self.tokens, self.split, rows=self.limit, advance=advance)
        score = None if predictions.broken else adapter.score(predictions)[self.task.metrics[0]]
        return Measurement(score, predictions.logits, predictions.broken)


@dataclass(frozen=True)
class Evaluator:
    """Quantized model of a run, with its ranges loaded, and the run's evaluation rows."""

    quantization: QuantizedModel
    rows: EvaluationRows
    ctx: RunContext

    def measure(self, advance: Callable[..., None]) -> Measurement:
        """Evaluate the model with its quantizers in their current modes."""
        run = adapter_for(self.rows.task).runner(self.quantization.model, self.ctx)
        return self.rows.measure(run, advance)


def evaluator_of(
    record: Record,
    outputs: Path,
    stage: QuantizedStage | None,
    limit: int | None,
    accelerator: Accelerator | None,
) -> Evaluator:
    """Load the quantized model of a stage of a run, or of its last one, with its evaluation rows.

    Args:
        record: Record of the run.
        outputs: Folder of the store.
        stage: Stage of the model; None for the last one.
        limit: Upper bound on the number of rows; None for those that the run evaluated.
        accelerator: Accelerator to run on; None for that of the run.

    Raises:
        QuantizationError: If the run quantized nothing, or nothing in that stage.
        StoreError: If an artifact is missing or damaged, or another version wrote the Record.
        ConfigError: If this machine has no such accelerator.
    """
    subject = subject_of(record, outputs, stage)
    ctx = runtime_of(record, outputs, accelerator)
    rows = rows_of(record, outputs, subject.stage).first(limit)
    for name in stages_of(record, subject.stage):
        folder_of(record, name, outputs)  # undamaged
    _, quantization = load_quantized(subject.encoder, subject.quant_config, subject.ranges, ctx)
    assert quantization is not None
    return Evaluator(quantization, rows, ctx)


def rows_of(record: Record, outputs: Path, stage: str) -> EvaluationRows:
    """Return the evaluation rows of a run, as many as it evaluated itself, with the decisions of a stage."""
    experiment = experiment_of(record)
    task = decided_task(experiment.task, record, stage)
    tokens = Tokens(folder_of(record, StageName.TOKENS, outputs), "")
    return EvaluationRows(task, tokens, experiment.budget.evaluation_rows)
