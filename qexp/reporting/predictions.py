"""Evaluations of the stages of a run, found by key, and their predictions in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from qexp.artifacts.types import Scores
from qexp.data.arrow import to_numpy
from qexp.errors import DataError, StoreError
from qexp.naming import MODEL_STAGES, StageName
from qexp.reporting.command import command_of
from qexp.reporting.run_names import announced, choose_run
from qexp.reporting.run_view import RunView

SCORES, PARITY = StageName.SCORES, StageName.PARITY
"""Stages that store the predictions of torch and of the exported graph."""

Array = NDArray[Any]


@dataclass(frozen=True)
class PredictionRows:
    """Predictions of one split, as arrays of shape [rows]."""

    ids: Array
    predictions: Array
    """Class ids, numbers or texts."""
    labels: Array
    """Labels of the same type; for questions, tuples of all gold answers."""
    broken: int
    """Number of rows with a non-finite logit."""


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of one stage of one run."""

    run: RunView
    stage: str
    folder: Path
    """Folder of the evaluation's artifact."""

    @property
    def name(self) -> str:
        """Shortened key and stage, such as ``ab12cd34:qat``."""
        return f"{self.run.record.key[:8]}:{self.stage}"

    @property
    def splits(self) -> tuple[str, ...]:
        """Short names of the task's evaluation splits."""
        return tuple(self.run.find("task.evaluation", {}))

    @property
    def scores(self) -> Mapping[str, float | None]:
        """Scores of the stage in the Record."""
        return self.run.record.scores[self.stage]

    def rows(self, split: str) -> PredictionRows:
        """Return the predictions of a split.

        Raises:
            StoreError: If they are missing or damaged; the message has the command that recreates them.
        """
        path = Scores(self.folder, self.folder.name).predictions(split)
        try:
            return _rows(pq.ParquetFile(path).read())  # pq.read_table would import pandas
        except FileNotFoundError:
            problem = f"the predictions of {self.name} are gone (no file {path})"
        except (OSError, pa.ArrowException, KeyError) as error:
            problem = f"the predictions of {self.name} cannot be read ({path}: {error}); delete their folder"
        raise StoreError(f"{problem}; make them again with: {command_of(self.run)}")


def find_evaluation(words: str, stage: str | None, outputs: Path) -> Evaluation:
    """Return the evaluation that ``RUN`` or ``RUN:STAGE`` names.

    Args:
        words: Name of a run (:mod:`qexp.reporting.run_names`), optionally with a stage:
            ``fp32 control ptq qat``, or ``onnx`` for the exported graph.
        stage: Stage if ``words`` names none; the default is the last stage in torch.
        outputs: Folder that the runs wrote to.

    Raises:
        StoreError: If it is not clear which run is meant, or it has no such stage.
    """
    name, _, named_stage = words.partition(":")
    run = RunView(announced(choose_run(name, outputs)))
    scored_stages = (name for name in reversed(MODEL_STAGES) if name in run.record.scores)
    return evaluation_of(run, named_stage or stage or next(scored_stages, "fp32"), outputs)


def evaluation_of(run: RunView, stage: str, outputs: Path) -> Evaluation:
    """Return the evaluation of one stage of a run.

    Raises:
        StoreError: If the run has no such stage, or its artifacts cannot be assigned to stages.
    """
    by_stage = evaluations(run, outputs)
    if stage not in by_stage:
        available = ", ".join(by_stage) or "none: it ended before it had scores"
        raise StoreError(f"run {run.record.key} has no scores of stage {stage}; it has {available}")
    return by_stage[stage]


def evaluations(run: RunView, outputs: Path) -> dict[str, Evaluation]:
    """Return the evaluation of each stage that has scores, in the order of the pipeline.

    Raises:
        StoreError: If the Record does not list as many evaluations as it has scores.
    """
    by_stage: dict[str, Evaluation] = {}
    for folder, of_folder in ((SCORES, MODEL_STAGES), (PARITY, ("onnx",))):
        stages = [stage for stage in of_folder if stage in run.record.scores]
        keys = [str(visit.get("key")) for visit in run.record.stages if visit.get("stage") == folder]
        if folder == PARITY:
            keys = keys[:1]  # the run's own evaluation precedes those of engines in other runtimes
        if len(keys) != len(stages):
            raise StoreError(
                f"run {run.record.key}: its Record has scores of {', '.join(stages) or 'no stage'} and "
                f"{len(keys)} artifacts {folder}, so which is whose cannot be told; run it again: "
                f"{command_of(run)}"
            )
        artifacts = [outputs / "artifacts" / folder / key for key in keys]
        by_stage |= {stage: Evaluation(run, stage, of) for stage, of in zip(stages, artifacts, strict=True)}
    return by_stage


def _rows(table: pa.Table) -> PredictionRows:
    broken = np.zeros(table.num_rows, bool)
    for column in (table[name] for name in table.column_names if name.startswith("logit_")):
        if pa.types.is_list(column.type):  # of each word
            broken |= [not np.isfinite(np.asarray(each)).all() for each in column.to_pylist()]
        else:
            broken |= ~np.isfinite(to_numpy(column))
    ids, predictions, labels = (_array(table[name]) for name in ("id", "prediction", "label"))
    return PredictionRows(ids, predictions, labels, int(broken.sum()))


def _array(column: pa.ChunkedArray) -> Array:
    """Return a column as an array [rows]; texts are objects, and lists of texts become tuples."""
    if pa.types.is_list(column.type):
        return np.fromiter(map(tuple, column.to_pylist()), object, len(column))
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return to_numpy(column)
    return np.fromiter(column.to_pylist(), object, len(column))


def joined_rows(first: Evaluation, second: Evaluation, split: str) -> tuple[Array, Array, Array]:
    """Return the predictions of both evaluations and the labels, [rows] each, in the order of the ids.

    Raises:
        DataError: If the two were not evaluated on the same rows, or one has non-finite logits.
        StoreError: If predictions are missing or damaged.
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
    (_, first_rows), (_, second_rows) = sides
    _check_same_ids(first, second, split=split, first_rows=first_rows, second_rows=second_rows)
    first_order, second_order = np.argsort(first_rows.ids), np.argsort(second_rows.ids)
    labels = first_rows.labels[first_order]
    if (mismatch := labels != second_rows.labels[second_order]).any():
        raise DataError(
            f"{first.name} and {second.name}, {split}: {int(mismatch.sum())} of {len(labels)} rows have the "
            f"same id and another label, the first of them {first_rows.ids[first_order][mismatch][0]!s}; "
            "these are other rows of data, whose scores cannot be paired"
        )
    return first_rows.predictions[first_order], second_rows.predictions[second_order], labels


def _check_same_ids(
    first: Evaluation, second: Evaluation, split: str, first_rows: PredictionRows, second_rows: PredictionRows
) -> None:
    if first_rows.ids.dtype.kind != second_rows.ids.dtype.kind:
        difference = (
            f"ids such as {first_rows.ids[0]!s} in the first and such as {second_rows.ids[0]!s} in the second"
        )
    else:
        unmatched = (
            np.setdiff1d(first_rows.ids, second_rows.ids),
            np.setdiff1d(second_rows.ids, first_rows.ids),
        )
        if not any(map(len, unmatched)):
            return
        difference = (
            f"{_counted(unmatched[0], first_rows)} only in the first, "
            f"{_counted(unmatched[1], second_rows)} only in the second"
        )
    raise DataError(
        f"{first.name} and {second.name}, {split}: not the same rows: {difference}; compare runs of one "
        "data set and one budget"
    )


def _counted(ids: Array, rows: PredictionRows) -> str:
    """Return a count such as ``2 of 10 ids (such as 12)``."""
    return f"{len(ids)} of {len(rows.ids)} ids" + (f" (such as {ids[0]!s})" if len(ids) else "")
