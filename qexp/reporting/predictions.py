"""One stage of one run, found by its words, and the predictions that it left in the store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qexp.artifacts.types import Scores
from qexp.errors import DataError, StoreError
from qexp.records.record import read, records_folder
from qexp.reporting.command import command_of
from qexp.reporting.run_view import TORCH_STAGES, Run

LEAST_PREFIX = 6
"""Characters of a key that it takes to name a run."""
SCORES, PARITY = "6-scores", "8-parity"
"""Folders of torch's predictions and of the exported graph's (a test holds them to the stages' names)."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """Predictions of one split, [rows] each."""

    ids: Array
    predictions: Array
    """Class ids, numbers or texts."""
    labels: Array
    """The same; for questions, tuples of all gold answers."""
    broken: int
    """Rows with a logit that is no number."""


@dataclass(frozen=True)
class Evaluation:
    """One stage of one run."""

    run: Run
    stage: str
    folder: Path
    """Its artifact."""

    @property
    def name(self) -> str:
        """``ab12cd34:qat``."""
        return f"{self.run.record.key[:8]}:{self.stage}"

    @property
    def splits(self) -> tuple[str, ...]:
        """Short names of the task's evaluation splits."""
        return tuple(self.run.find("task.evaluation", {}))

    @property
    def scores(self) -> Mapping[str, float | None]:
        """What the Record says of it."""
        return self.run.record.scores[self.stage]

    def rows(self, split: str) -> Rows:
        """Predictions of a split.

        Raises:
            StoreError: they are gone or damaged; the message has the command that makes them again.
        """
        path = Scores(self.folder, self.folder.name).predictions(split)
        try:
            return _rows(pq.read_table(path))
        except FileNotFoundError:
            problem = f"the predictions of {self.name} are gone (no file {path})"
        except (OSError, pa.ArrowException, KeyError) as error:
            problem = f"the predictions of {self.name} cannot be read ({path}: {error}); delete their folder"
        raise StoreError(f"{problem}; make them again with: {command_of(self.run)}")


def find_evaluation(words: str, stage: str | None, outputs: Path) -> Evaluation:
    """The evaluation that ``KEY`` or ``KEY:STAGE`` names; without a stage, the last one of torch.

    Args:
        words: Key of a Record, or the beginning of one, and a stage: ``fp32 control ptq qat``, or ``onnx``
            for the exported graph.
        stage: For words that name none.
        outputs: Folder that runs wrote to.

    Raises:
        StoreError: no Record, or several, begin with the key; or the run has no such stage.
    """
    key, _, asked = words.partition(":")
    run = Run(read(_record_file(key, records_folder(outputs))))
    scored = (name for name in reversed(TORCH_STAGES) if name in run.record.scores)
    return evaluation_of(run, asked or stage or next(scored, "fp32"), outputs)


def evaluation_of(run: Run, stage: str, outputs: Path) -> Evaluation:
    """The evaluation of one stage of a run.

    Raises:
        StoreError: the run has no such stage, or its artifacts cannot be told apart.
    """
    found = evaluations(run, outputs)
    if stage not in found:
        there = ", ".join(found) or "none: it ended before it had scores"
        raise StoreError(f"run {run.record.key} has no scores of stage {stage}; it has {there}")
    return found[stage]


def _record_file(key: str, folder: Path) -> Path:
    try:
        known = sorted(name.removesuffix(".json") for name in os.listdir(folder) if name.endswith(".json"))
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}; --outputs names other outputs") from error
    if key in known:
        return folder / f"{key}.json"
    if len(key) < LEAST_PREFIX:
        raise StoreError(f"{key!r}: name a run by at least {LEAST_PREFIX} characters of its key")
    found = [name for name in known if name.startswith(key)]
    found = [name for name in found if not name.endswith("-failed")] or found
    if len(found) != 1:
        count = "no Record" if not found else f"{len(found)} Records ({', '.join(found[:4])}, …)"
        raise StoreError(f"{key!r}: {count} in {folder} with a key that begins so; keys are the files' names")
    return folder / f"{found[0]}.json"


def evaluations(run: Run, outputs: Path) -> dict[str, Evaluation]:
    """Each stage of a run that has scores, in the order of the line, with its artifact.

    Raises:
        StoreError: the Record lists another number of evaluations than it has scores.
    """
    found: dict[str, Evaluation] = {}
    for folder, of_folder in ((SCORES, TORCH_STAGES), (PARITY, ("onnx",))):
        stages = [stage for stage in of_folder if stage in run.record.scores]
        keys = [str(visit.get("key")) for visit in run.record.stages if visit.get("stage") == folder]
        if folder == PARITY:
            keys = keys[:1]  # the run's own comes first, engines in other runtimes after it
        if len(keys) != len(stages):
            raise StoreError(
                f"run {run.record.key}: its Record has scores of {', '.join(stages) or 'no stage'} and "
                f"{len(keys)} artifacts {folder}, so which is whose cannot be told; run it again: "
                f"{command_of(run)}"
            )
        artifacts = [outputs / "artifacts" / folder / key for key in keys]
        found |= {stage: Evaluation(run, stage, of) for stage, of in zip(stages, artifacts, strict=True)}
    return found


def _rows(table: pa.Table) -> Rows:
    logits = [table[name].to_numpy() for name in table.column_names if name.startswith("logit_")]
    broken = np.zeros(table.num_rows, bool)
    for column in logits:
        broken |= ~np.isfinite(column)
    ids, predictions, labels = (_array(table[name]) for name in ("id", "prediction", "label"))
    return Rows(ids, predictions, labels, int(broken.sum()))


def _array(column: pa.ChunkedArray) -> Array:
    """Numbers as they are; texts, and lists of texts as tuples, as objects, [rows]."""
    if pa.types.is_list(column.type):
        return np.fromiter(map(tuple, column.to_pylist()), object, len(column))
    values: Array = column.to_numpy()
    return values


def joined_rows(first: Evaluation, second: Evaluation, split: str) -> tuple[Array, Array, Array]:
    """Predictions of both and the labels, row by row in the order of the ids.

    Raises:
        DataError: the two were not evaluated on the same rows, or one has logits that are no numbers.
        StoreError: predictions are gone or damaged.
    """
    sides = [(each, each.rows(split)) for each in (first, second)]
    for each, rows in sides:
        if rows.broken:
            raise DataError(
                f"{each.name} {split}: {rows.broken} of {len(rows.ids)} rows have logits that are no "
                "numbers, so its metrics are undefined and there is nothing to compare"
            )
        if len(np.unique(rows.ids)) != len(rows.ids):
            raise DataError(f"{each.name} {split}: ids repeat, so rows cannot be joined; number them anew")
    (_, ours), (_, theirs) = sides
    _check_same_ids(first, second, split, ours, theirs)
    here, there = np.argsort(ours.ids), np.argsort(theirs.ids)
    labels = ours.labels[here]
    if (other := labels != theirs.labels[there]).any():
        raise DataError(
            f"{first.name} and {second.name}, {split}: {int(other.sum())} of {len(labels)} rows have the "
            f"same id and another label, the first of them {ours.ids[here][other][0]!s}; these are other "
            "rows of data, whose scores cannot be paired"
        )
    return ours.predictions[here], theirs.predictions[there], labels


def _check_same_ids(first: Evaluation, second: Evaluation, split: str, ours: Rows, theirs: Rows) -> None:
    if ours.ids.dtype.kind != theirs.ids.dtype.kind:
        found = f"ids such as {ours.ids[0]!s} in the first and such as {theirs.ids[0]!s} in the second"
    else:
        only = np.setdiff1d(ours.ids, theirs.ids), np.setdiff1d(theirs.ids, ours.ids)
        if not any(map(len, only)):
            return
        found = f"{_counted(only[0], ours)} only in the first, {_counted(only[1], theirs)} only in the second"
    raise DataError(
        f"{first.name} and {second.name}, {split}: not the same rows: {found}; compare runs of one data set "
        "and one budget"
    )


def _counted(ids: Array, rows: Rows) -> str:
    """``2 of 10 ids (such as 12)``."""
    return f"{len(ids)} of {len(rows.ids)} ids" + (f" (such as {ids[0]!s})" if len(ids) else "")
