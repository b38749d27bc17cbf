"""Prediction and scoring of all evaluation splits, and the Parquet files of the predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qexp.artifacts.types import Scores, Tokens
from qexp.config import Task, score_name
from qexp.context import RunContext
from qexp.tasks import adapter_for
from qexp.tasks.base import Array, ForwardFn, Predictions, TaskAdapter


@dataclass
class Scored:
    """Metrics of all evaluation splits, and details of their evaluation by the splits' short names."""

    metrics: dict[str, float | None] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    broken: int = 0
    """Number of rows, or windows, with NaN or infinite logits."""


def score_splits(
    run: ForwardFn,
    tokens: Tokens,
    task: Task,
    *,
    rows: int | None,
    out: Scores,
    title: str,
    ctx: RunContext,
    adapter: TaskAdapter | None = None,
) -> Scored:
    """Predict and score the first ``rows`` rows of each evaluation split; write the predictions to ``out``.

    Metrics of a split with NaN or infinite logits are None. ``adapter`` replaces that of the task.
    """
    adapter, scored = adapter or adapter_for(task), Scored()
    for name, split_name in task.evaluation.items():
        total = int(tokens.facts["rows"][split_name])
        with ctx.console.bar(f"{title} {name}", total=min(total, rows or total)) as advance:
            predictions = adapter.predict(run, tokens, split_name, rows=rows, advance=advance)
        write_predictions(predictions, out, name)
        scored.broken += predictions.broken
        metrics = adapter.score(predictions) if _is_sound(predictions, ctx) else dict.fromkeys(task.metrics)
        scored.metrics |= {score_name(metric, name, task): value for metric, value in metrics.items()}
        if predictions.notes:
            scored.notes[name] = dict(predictions.notes)
    return scored


def _is_sound(predictions: Predictions, ctx: RunContext) -> bool:
    """Return whether all logits are finite, else warn: the argmax of NaN would still be a class."""
    if predictions.broken:
        rows = f"{predictions.broken} of {len(predictions.ids)} rows"
        ctx.console.warn(f"{rows} have logits that are no numbers: every metric is undefined")
    return not predictions.broken


def write_predictions(found: Predictions, out: Scores, name: str) -> None:
    """Write Parquet with ``id``, ``prediction``, ``label``, ``logit_0``, …, and ``margin`` if it is known.

    Where a row has several decisions, they have margins ``margin_0``, …. Where each word has logits and a
    margin, those of a row are lists. A ranking is a list, and so is ``score``, that of each document.
    """
    columns: dict[str, Any] = {"id": found.ids, "prediction": found.predictions, "label": found.labels}
    numbers: dict[str, Any] = {f"logit_{index}": column for index, column in enumerate(found.logits.T)}
    numbers |= _margin_columns(found.margins)
    if found.scores is not None:
        texts = pa.list_(pa.string())
        columns["prediction"] = pa.array(found.predictions, texts)
        numbers = {"score": pa.array(found.scores, pa.list_(pa.float32()))} | numbers
    if found.words is not None:
        columns |= {name: _values_of_words(columns[name]) for name in ("prediction", "label")}
        numbers = {name: _lists(column, found.words) for name, column in numbers.items()}
    pq.write_table(pa.table(columns | numbers), out.predictions(name))


def _values_of_words(rows: Array) -> pa.ListArray:
    """Return a column of lists of texts, or of numbers where a row has scores."""
    first = next((value for row in rows for value in row), "")
    return pa.array(rows, pa.list_(pa.float64() if isinstance(first, float) else pa.string()))


def _lists(values: Array, counts: Array) -> pa.ListArray:
    """Return a column of lists of the values of each row, of which it has ``counts``."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values)))


def _margin_columns(margins: Array | None) -> dict[str, Array]:
    if margins is None or margins.ndim == 1:
        return {} if margins is None else {"margin": margins}
    return {f"margin_{index}": column for index, column in enumerate(margins.T)}


def _margins(table: pa.Table) -> Array | None:
    if "margin" in table.column_names:
        return _values(table["margin"])
    several = [table[name].to_numpy() for name in table.column_names if name.startswith("margin_")]
    return np.stack(several, axis=1) if several else None


def _values(column: pa.ChunkedArray) -> Array:
    """Return the numbers of a column, also those of lists, one row behind the other."""
    flat = column.combine_chunks().flatten() if pa.types.is_list(column.type) else column
    return np.asarray(flat.to_numpy())


def _words(table: pa.Table) -> Array | None:
    """Return the number of words of each row that have logits; None where rows have them."""
    column = table["logit_0"]
    return np.array([len(row) for row in column], np.int64) if pa.types.is_list(column.type) else None


def _predictions(column: pa.ChunkedArray) -> Array:
    """Return predictions; lists of ids as tuples."""
    found = _labels(column)
    if found.dtype == object and len(found) and isinstance(found[0], list):
        found[:] = [tuple(each) for each in found]
    return found


def _labels(column: pa.ChunkedArray) -> Array:
    """Return the gold values; several answers to a question as a list, not as an array."""
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        return np.asarray(column.to_numpy())
    labels = np.empty(len(column), object)
    labels[:] = column.to_pylist()
    return labels


def read_predictions(scores: Scores, name: str) -> Predictions:
    """Read what :func:`write_predictions` wrote, which excludes the number of broken rows and the notes."""
    table = pq.read_table(scores.predictions(name))
    logits = [_values(table[column]) for column in table.column_names if column.startswith("logit_")]
    return Predictions(
        table["id"].to_numpy(),
        _predictions(table["prediction"]),
        _labels(table["label"]),
        np.stack(logits, axis=1),
        margins=_margins(table),
        words=_words(table),
        scores=_labels(table["score"]) if "score" in table.column_names else None,
    )
