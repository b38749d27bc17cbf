"""Validation of classification and regression rows: texts with a class or a number each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import TextTask
from qexp.data.arrow import from_numpy, is_text, nulls, to_numpy
from qexp.data.sources import labels
from qexp.data.sources.class_names import ids_in_order_of, names_in
from qexp.data.sources.validation import ID_COLUMNS, check_columns, check_rows, refuse, row_ids, texts

FIELDS = "task.text and task.label"
"""Fields of the experiment that select the columns, as error messages name them."""


OPTIONAL = ID_COLUMNS
"""Columns that are read where there are any."""


def columns(task: TextTask) -> tuple[str, ...]:
    """Return the columns that are read, the label last."""
    return (*task.text, task.label)


def texts_in(task: TextTask) -> tuple[str, ...]:
    """Return the columns that hold texts, whatever their values look like."""
    return tuple(task.text)


def split_by(task: TextTask) -> tuple[str, ...]:
    """Return the columns by which the rows of one file are divided: rows that share them stay together."""
    return tuple(task.text)


def check(table: pa.Table, task: TextTask, where: str) -> None:
    """Check that the table has rows, and each column that is read once.

    Raises:
        DataError: It has not.
    """
    check_columns(table.column_names, columns(task), where, fields=FIELDS)
    check_rows(table, where)


def checked(table: pa.Table, task: TextTask, where: str) -> pa.Table:
    """Return the table in canonical form: columns ``id``, those of ``task.text``, and ``label``.

    ``id`` is int64 and texts are strings. ``label`` is int64 class ids in the order of ``task.labels``,
    whatever the order in the table's own schema, or float64 numbers that float32 represents exactly.

    Raises:
        DataError: A column, text or label is missing or invalid.
    """
    check(table, task, where)
    form = {"id": row_ids(table, where)}
    for name in task.text:
        form[name] = texts(table.column(name), f"{where}: column {name!r}", fields="task.text")
    values, here = table.column(task.label), f"{where}: column {task.label!r}"
    refuse(nulls(values), values, here, labels.NEEDED)
    if task.kind == "classification":
        named = bool(names_in(table, task.label))
        label = _class_ids(values, task, here, order=ids_in_order_of(task, table, where), named=named)
    else:
        label = _numbers(values, task, here)
    return pa.table({**form, "label": label})


def _class_ids(
    values: pa.ChunkedArray, task: TextTask, here: str, *, order: list[int] | None, named: bool
) -> pa.ChunkedArray:
    """Return class ids in the order of ``task.labels``.

    Args:
        values: Labels as they are in the table.
        task: Task with its labels.
        here: Name of the column in error messages.
        order: Task's id for each id of the table; None if they are equal.
        named: Whether the schema of the table names its ids.
    """
    values = labels.as_read(values, here)
    if is_text(values.type) or (labels.are_numerals(task.labels) and not named):
        return labels.ids_of_names(values, task, here)
    rule = labels.rule_of(task)
    numbers = to_numpy(values)
    bad = (numbers < 0) | (numbers >= len(task.labels))
    if (numbers[bad] == -1).any():
        rule += (
            "; -1 marks a hidden test label: use a split with public labels, or write the rows with their "
            f"labels to data.root/{task.name}/<split>.parquet and choose data=local"
        )
    refuse(bad, values, here, f"{rule}; correct the row, or task.labels")
    ids = numbers.astype(np.int64)
    return from_numpy(ids if order is None else np.asarray(order, np.int64)[ids])


def _numbers(values: pa.ChunkedArray, task: TextTask, here: str) -> pa.ChunkedArray:
    """Return regression labels rounded to float32, the precision of training, whatever the file's type."""
    numbers = labels.numbers(values, here)
    low, high = map(np.float32, task.span)
    allowed = "allowed is {:g} to {:g}".format(*task.span)
    rule = f"{allowed}; correct the row, or task.label_range"
    refuse(~np.isfinite(numbers), values, here, rule)
    with np.errstate(over="ignore"):
        rounded = numbers.astype(np.float32)
    refuse((rounded < low) | (rounded > high), values, here, rule)
    return from_numpy(rounded.astype(np.float64) + 0.0)  # + 0.0 turns -0.0 into 0.0
