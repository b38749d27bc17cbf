"""Predictions of every evaluation split, their scores, and their file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qexp.artifacts.types import Scores, Tokens
from qexp.config import Task, score_name
from qexp.context import Runtime
from qexp.tasks import family_of
from qexp.tasks.base import Array, Predictions, Run


@dataclass
class Scored:
    """Metrics of all evaluation splits, and notes on how they were found, by the splits' short names."""

    metrics: dict[str, float | None] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    broken: int = 0
    """Rows, or windows, with logits that are not finite."""


def score_splits(
    run: Run, tokens: Tokens, task: Task, rows: int | None, out: Scores, title: str, rt: Runtime
) -> Scored:
    """Predict the first ``rows`` rows of each evaluation split, write them down, and score them."""
    family, scored = family_of(task), Scored()
    for name, split_name in task.evaluation.items():
        total = int(tokens.facts["rows"][split_name])
        with rt.screen.bar(f"{title} {name}", total=min(total, rows or total)) as move:
            found = family.predict(run, tokens, split_name, rows, move)
        write_predictions(found, out, name)
        scored.broken += found.broken
        metrics = family.score(found) if _is_sound(found, rt) else dict.fromkeys(task.metrics)
        scored.metrics |= {score_name(metric, name, task): value for metric, value in metrics.items()}
        if found.notes:
            scored.notes[name] = dict(found.notes)
    return scored


def _is_sound(found: Predictions, rt: Runtime) -> bool:
    """No metric at all with a logit that is no number, whose argmax would still be a class."""
    if found.broken:
        rows = f"{found.broken} of {len(found.ids)} rows"
        rt.screen.warn(f"{rows} have logits that are no numbers: every metric is undefined")
    return not found.broken


def write_predictions(found: Predictions, out: Scores, name: str) -> None:
    """Parquet with ``id``, ``prediction``, ``label``, ``logit_0``, …, and ``margin`` where it is known."""
    columns = {"id": found.ids, "prediction": found.predictions, "label": found.labels}
    columns |= {f"logit_{index}": column for index, column in enumerate(found.logits.T)}
    columns |= {} if found.margins is None else {"margin": found.margins}
    pq.write_table(pa.table(columns), out.predictions(name))


def _labels(column: pa.ChunkedArray) -> Array:
    """Gold values; several answers to a question as a list, not as an array."""
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        return np.asarray(column.to_numpy())
    labels = np.empty(len(column), object)
    labels[:] = column.to_pylist()
    return labels


def read_predictions(scores: Scores, name: str) -> Predictions:
    """What :func:`write_predictions` left."""
    table = pq.read_table(scores.predictions(name))
    logits = [table[column].to_numpy() for column in table.column_names if column.startswith("logit_")]
    return Predictions(
        table["id"].to_numpy(),
        table["prediction"].to_numpy(),
        _labels(table["label"]),
        np.stack(logits, axis=1),
        margins=table["margin"].to_numpy() if "margin" in table.column_names else None,
    )
