"""Validation of rows of an embedding: pairs of texts with the gold similarity of each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import EmbeddingTask
from qexp.data.arrow import from_numpy, nulls
from qexp.data.sources import labels
from qexp.data.sources.validation import ID_COLUMNS, check_columns, check_rows, refuse, row_ids, texts

FIELDS = "task.text and task.label"
"""Fields of the experiment that select the columns, as error messages name them."""


OPTIONAL = ID_COLUMNS
"""Columns that are read where there are any."""


def columns(task: EmbeddingTask) -> tuple[str, ...]:
    """Return the columns that are read, the gold similarity last."""
    return (*task.text, task.label)


def texts_in(task: EmbeddingTask) -> tuple[str, ...]:
    """Return the columns that hold texts, whatever their values look like."""
    return task.text


def split_by(task: EmbeddingTask) -> tuple[str, ...]:
    """Return the columns by which the rows of one file are divided: rows that share them stay together."""
    return task.text


def check(table: pa.Table, task: EmbeddingTask, where: str) -> None:
    """Check that the table has rows, and each column that is read once.

    Raises:
        DataError: It has not.
    """
    check_columns(table.column_names, columns(task), where, fields=FIELDS)
    check_rows(table, where)


def checked(table: pa.Table, task: EmbeddingTask, where: str) -> pa.Table:
    """Return the table in canonical form: columns ``id``, those of ``task.text``, and ``label``.

    ``id`` is int64, texts are strings, and ``label`` is float64.

    Raises:
        DataError: A column, text or similarity is missing or invalid.
    """
    check(table, task, where)
    form = {"id": row_ids(table, where)}
    for name in task.text:
        form[name] = texts(table.column(name), f"{where}: column {name!r}", fields="task.text")
    values, here = table.column(task.label), f"{where}: column {task.label!r}"
    refuse(nulls(values), values, here, labels.NEEDED)
    similarities = labels.numbers(values, here)
    rule = "a similarity is a finite number; correct or drop the row"
    refuse(~np.isfinite(similarities), values, here, rule)
    return pa.table({**form, "label": from_numpy(similarities + 0.0)})  # + 0.0 turns -0.0 into 0.0
