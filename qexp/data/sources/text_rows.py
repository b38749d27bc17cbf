"""Validation of classification and regression rows: texts with a class or a number each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import TextTask
from qexp.data.arrow import from_numpy, nulls, to_numpy
from qexp.data.sources.class_names import ids_in_order_of
from qexp.data.sources.validation import check_columns, check_rows, refuse, row_ids, texts
from qexp.errors import DataError

FIELDS = "task.text and task.label"
"""Fields of the experiment that select the columns, as error messages name them."""


def columns(task: TextTask) -> tuple[str, ...]:
    """Return the columns that are read, the label last."""
    return (*task.text, task.label)


def checked(table: pa.Table, task: TextTask, where: str) -> pa.Table:
    """Return the table in canonical form: columns ``id``, those of ``task.text``, and ``label``.

    ``id`` is int64 and texts are strings. ``label`` is int64 class ids in the order of ``task.labels``,
    whatever the order in the table's own schema, or float64 numbers that float32 represents exactly.

    Raises:
        DataError: A column, text or label is missing or invalid.
    """
    check_columns(table.column_names, columns(task), where, fields=FIELDS)
    check_rows(table, where)
    form = {"id": row_ids(table)}
    for name in task.text:
        form[name] = texts(table.column(name), f"{where}: column {name!r}", fields="task.text")
    values, here = table.column(task.label), f"{where}: column {task.label!r}"
    refuse(nulls(values), values, here, "every row needs a label; fill it in or drop the row")
    if task.kind == "classification":
        label = _class_ids(values, task, here, ids_in_order_of(task, table, where))
    else:
        label = _numbers(values, task, here)
    return pa.table({**form, "label": label})


def _class_ids(
    values: pa.ChunkedArray, task: TextTask, here: str, order: list[int] | None
) -> pa.ChunkedArray:
    """Return class ids in the order of ``task.labels``; ``order`` maps the ids of the table to it."""
    rule = "allowed are " + ", ".join(f"{i} ({name})" for i, name in enumerate(task.labels))
    if pa.types.is_floating(values.type):
        numbers = to_numpy(values)
        refuse(numbers != np.floor(numbers), values, here, f"a class id is an integer: {rule}")
    if not pa.types.is_integer(values.type):
        raise DataError(f"{here}: its type is {values.type}; class ids are integers: {rule}; cast the column")
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
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise DataError(f"{here}: its type is {values.type}; the label of a regression is a number; cast it")
    numbers = to_numpy(values).astype(np.float64)
    low, high = np.float32(task.label_range[0]), np.float32(task.label_range[1])
    allowed = "allowed is {:g} to {:g}".format(*task.label_range)
    rule = f"{allowed}; correct the row, or task.label_range"
    refuse(~np.isfinite(numbers), values, here, rule)
    with np.errstate(over="ignore"):
        rounded = numbers.astype(np.float32)
    refuse((rounded < low) | (rounded > high), values, here, rule)
    return from_numpy(rounded.astype(np.float64) + 0.0)  # + 0.0 turns -0.0 into 0.0
