"""Expected duration of stages: what similar stages took, else a rule from rows, length and model.

The rule counts operations: rows times tokens times the model's parameters in matrix products, at the rate of
matrix products that this machine reaches now.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

from qexp.artifacts.manifest import read_manifest
from qexp.config import BatchSize, Experiment, Finetune
from qexp.config.training import ContinuedTraining
from qexp.data.checkpoints import Checkpoint, ScratchModel, config_of
from qexp.data.sources.resolve import SourceRows
from qexp.errors import QexpError
from qexp.naming import StageName
from qexp.records.record import Record, read, records_folder

Features = tuple[str, ...]
"""Stage, task, model and budget, which determine most of a stage's duration."""
MOST_RECORDS = 200
"""Records that are read, the newest first."""
SHARE_OF_RATE = 0.5
"""Share of the rate of one large matrix product that a model reaches."""
CHARACTERS = 4.5
"""Characters in a token of a text, on average."""
SAMPLED = 500
"""Rows whose length is looked at."""


def features_of(record: Record) -> Features:
    """Return task, model and budget of a Record."""
    sections = (record.experiment.get(section) or {} for section in ("task", "model", "budget"))
    return tuple(str(section.get("name")) for section in sections)


def evidence(outputs: Path) -> dict[Features, float]:
    """Return the median seconds of stages that were built, by every prefix of their features.

    A Record that found its artifacts in the store has the times of their manifests.
    """
    seconds: dict[Features, list[float]] = defaultdict(list)
    for features, taken in _times(outputs):
        for length in range(1, len(features) + 1):
            seconds[features[:length]].append(taken)
    return {features: median(times) for features, times in seconds.items()}


def _times(outputs: Path) -> Iterator[tuple[Features, float]]:
    records = list(_newest(records_folder(outputs)))
    built = {
        (visit["stage"], visit["key"])
        for record in records
        for visit in record.stages
        if visit["state"] == "built"
    }
    for record in records:
        for visit in record.stages:
            features = (visit["stage"], *features_of(record))
            if visit["state"] == "built":
                yield features, visit["seconds"]
            elif (place := (visit["stage"], visit["key"])) not in built:
                built.add(place)
                if (taken := _stored_seconds(outputs / "artifacts" / Path(*place))) is not None:
                    yield features, taken


def _newest(folder: Path) -> Iterator[Record]:
    """Yield the newest Records; those that cannot be read are skipped."""
    files = (
        sorted(folder.glob("[!.]*.json"), key=lambda file: -file.stat().st_mtime) if folder.is_dir() else []
    )
    for file in files[:MOST_RECORDS]:
        try:
            yield read(file)
        except QexpError:
            continue


def _stored_seconds(folder: Path) -> float | None:
    try:
        return read_manifest(folder).seconds
    except QexpError:
        return None


def expected(features: Features, known: Mapping[Features, float], least: int = 1) -> float | None:
    """Return the seconds of the most similar stages, those with the longest common prefix of features.

    Args:
        features: Stage, task, model and budget.
        known: Seconds of stages by features.
        least: Number of features that must agree.
    """
    for length in range(len(features), least - 1, -1):
        if features[:length] in known:
            return known[features[:length]]
    return None


@dataclass(frozen=True)
class Rates:
    """Seconds that a row takes on this machine."""

    train_row: float
    """In a training step."""
    evaluation_row: float
    """In an evaluation."""


@dataclass(frozen=True)
class StageRule:
    """Durations of the stages of an experiment by its rows and the rates of this machine.

    Fixed seconds, and factors of quantized models and of the noise floor, are those of MiniLM on two cores.
    """

    experiment: Experiment
    rows: Mapping[str, int]
    """Rows of each split."""
    rates: Rates
    row_tokens: float = 1.0
    """Tokens of a row of the train split, on average; counts where batches are of tokens."""

    @property
    def evaluated(self) -> int:
        """Rows of all evaluation splits that are evaluated."""
        return self._evaluated(self.experiment.budget.evaluation_rows)

    def _evaluated(self, limit: int | None) -> int:
        splits = self.experiment.task.evaluation.values()
        return sum(min(self.rows[split], limit or self.rows[split]) for split in splits if split in self.rows)

    @property
    def calibrated(self) -> int:
        """Rows of the train split that are observed."""
        limits = (
            self.experiment.calibration.samples,
            self.experiment.budget.calibration_rows,
            self.train_rows,
        )
        return min(each for each in limits if each is not None)

    @property
    def train_rows(self) -> int:
        """Rows of the train split that are trained on."""
        available = self.rows.get(self.experiment.task.train, 0)
        return min(available, self.experiment.data.train_rows or available)

    def steps(self, rows: int, epochs: float, batch_rows: float) -> int:
        """Return the optimizer steps of a training; an estimate where batches are of tokens."""
        steps = math.ceil(round(epochs * math.ceil(rows / batch_rows), 6))
        return min(steps, self.experiment.budget.train_steps or steps)

    @property
    def finetuning(self) -> tuple[int, float]:
        """Steps and rows of a batch of fine-tuning; no steps where a fine-tuned checkpoint is given."""
        finetune = self.experiment.finetune
        if not isinstance(finetune, Finetune):
            return 0, 1
        held_out = finetune.holdout or 0
        rows = self.train_rows - round(held_out if held_out >= 1 else held_out * self.train_rows)
        size = BatchSize.of(finetune).mean_rows(self.row_tokens)
        steps = self.steps(max(1, rows), finetune.epochs, size)
        return min(steps, finetune.max_steps or steps), size

    @property
    def continued(self) -> tuple[int, float]:
        """Steps and rows of a batch of the training that follows; no steps without one."""
        method = self.experiment.method
        if not isinstance(method, ContinuedTraining):
            return 0, 1
        size = BatchSize.continuing(method, self.experiment.finetune).mean_rows(self.row_tokens)
        return self.steps(self.train_rows, method.epochs, size), size

    def seconds(self, stage: str, part: str) -> float | None:
        """Return the seconds of a stage for a model or engine; None where there is no rule."""
        row, train = self.rates.evaluation_row, self.rates.train_row
        quantized = 1.0 if part.startswith("FP32") else 1.3
        (first, first_size), (then, then_size) = self.finetuning, self.continued
        rules = {
            StageName.TOKENS: 2 + sum(self.rows.values()) * 5e-5,
            StageName.FP32: 3 + first * first_size * train,
            StageName.STATISTICS: 2 + self.calibrated * row * 1.3,
            StageName.RANGES: 1.0,
            StageName.CONTROL: 3 + then * then_size * train,
            StageName.QAT: 3 + then * then_size * train * 1.1,
            StageName.SCORES: 1 + self.evaluated * row * quantized,
            StageName.ONNX: 8.0,
            StageName.FLOOR: 2 + self._evaluated(self.experiment.floor_rows) * row * 4,
            StageName.PARITY: 1 + self.evaluated * row,
            StageName.LATENCY: 5.0,
        }
        return rules.get(stage)


def rule_for(
    experiment: Experiment, rows: SourceRows, checkpoint: Checkpoint | ScratchModel
) -> StageRule | None:
    """Return the rule for an experiment; None for a model whose sizes are not known."""
    if not isinstance(checkpoint, Checkpoint):
        return None
    config = config_of(checkpoint)
    tokens = tokens_of_row(rows.splits[experiment.task.train], experiment.task.max_length)
    if (operations := _operations(config, tokens)) is None:
        return None
    seconds = operations / (SHARE_OF_RATE * matmul_rate())
    counts = {name: table.num_rows for name, table in rows.splits.items()}
    rates = Rates(train_row=3 * seconds, evaluation_row=seconds)
    return StageRule(experiment, counts, rates, row_tokens=tokens)


def tokens_of_row(table: pa.Table, most: int) -> float:
    """Return the mean number of tokens of a row, from the characters of its texts."""
    part = table.slice(0, SAMPLED)
    texts = [part[name] for name in part.column_names if pa.types.is_string(part[name].type)]
    characters = sum(pc.mean(pc.utf8_length(column)).as_py() or 0 for column in texts)
    return min(float(most), 3 + characters / CHARACTERS)


def _operations(config: Mapping[str, Any], tokens: float) -> float | None:
    """Return the operations of a forward pass over a row of an encoder."""
    names = ("hidden_size", "dim"), ("num_hidden_layers", "n_layers"), ("intermediate_size", "hidden_dim")
    sizes = [next((config[name] for name in each if name in config), None) for each in names]
    if not all(isinstance(size, int) for size in sizes):
        return None
    hidden, layers, inner = (float(size) for size in sizes if size is not None)
    return 2 * layers * tokens * (4 * hidden**2 + 2 * hidden * inner + 2 * tokens * hidden)


@cache
def matmul_rate(size: int = 768, turns: int = 3) -> float:
    """Return the operations per second of a matrix product on this machine, the fastest of some turns."""
    left = np.ones((size, size), np.float32)
    left @ left
    seconds = []
    for _ in range(turns):
        started = time.perf_counter()
        left @ left
        seconds.append(time.perf_counter() - started)
    return float(2 * size**3 / min(seconds))
