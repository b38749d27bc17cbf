"""Lists of labels in the forms that rows have, and what rows tell of a multi-label task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
from pydantic import ValidationError

from qexp.config import MultiLabelTask
from qexp.config.multi_label import DEFAULT_METRICS, LABELS
from qexp.config.validation_errors import explain
from qexp.data.arrow import is_text, to_numpy
from qexp.data.sources.class_names import METADATA
from qexp.data.sources.labels import are_numerals, listed, place_of
from qexp.data.sources.validation import as_numbers, refuse
from qexp.errors import DataError

Lists = list[list[str]]
"""Names of the labels of each row."""


def completed(
    task: MultiLabelTask, tables: Mapping[str, tuple[str, pa.Table]]
) -> tuple[MultiLabelTask, tuple[str, ...]]:
    """Return the task with the labels and metrics that it leaves open, and sentences on them.

    Labels are those in the schema of the train split, in its order, or else those of its rows, sorted. Rows
    are in one form from here on, so ``label`` no longer tells how the file has them.

    Raises:
        DataError: The train split has no label, or labels that cannot be read.
    """
    where, table = tables[task.train]
    update: dict[str, Any] = {"label": task.label or LABELS}
    statements: tuple[str, ...] = ()
    if not task.labels:
        update["labels"] = names_in_list(table, str(task.label)) or _found(table, task, where)
        statements = (f"labels: {listed(update['labels'])} (outputs from 0)",)
    if not task.metrics:
        update["metrics"] = DEFAULT_METRICS
    try:
        return MultiLabelTask.model_validate({**task.model_dump(), **update}), statements
    except ValidationError as error:
        raise DataError(f"{where}: {explain(error)}") from error


def _found(table: pa.Table, task: MultiLabelTask, where: str) -> tuple[str, ...]:
    names = {name for row in names_of(table, task, where) for name in row}
    if not names:
        raise DataError(
            f"{where}: column {task.label!r}: no row has a label; choose another column with data.label=NAME"
        )
    if are_numerals(sorted(names)):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def names_of(table: pa.Table, task: MultiLabelTask, where: str) -> Lists:
    """Return the names of the labels of each row.

    Raises:
        DataError: A row has no list, or something else in its place.
    """
    if task.label is None or _has_indicators(table, task.label, task.labels):
        return _of_indicators(table, task, where)
    values, here = table.column(task.label), f"{where}: column {task.label!r}"
    if is_text(values.type):
        raise DataError(
            f"{here}: texts such as {values[0].as_py()!r}, not lists; name what stands between the labels of "
            "a row, such as data.separator=';'"
        )
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        raise DataError(
            f"{here}: its type is {values.type}, not a list of labels; write lists, or name a column of 0 "
            "and 1 for each label with data.label=[NAME,…]"
        )
    rows = values.to_pylist()
    gaps = np.array([row is None or None in row for row in rows])
    refuse(gaps, values, here, "every row needs a list without gaps; a row without labels has an empty one")
    kind = values.type.value_type
    if not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise DataError(f"{here}: lists of {kind}; a label is a name or an integer; cast the column")
    return _named(rows, values, task, here=here, names=names_in_list(table, task.label))


def _has_indicators(table: pa.Table, column: str, labels: Sequence[str]) -> bool:
    """Return whether each label has a column; one of them may have the name of the column of lists."""
    if column not in table.column_names:
        return True
    kind = table.schema.field(column).type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return not lists and bool(labels) and {*labels} <= {*table.column_names}


def _named(
    rows: list[list[Any]], values: pa.ChunkedArray, task: MultiLabelTask, *, here: str, names: Sequence[str]
) -> Lists:
    """Return rows of names; integers are ids where the schema or the task names labels by words."""
    ids = pa.types.is_integer(values.type.value_type)
    names = names or (() if are_numerals(task.labels) else task.labels)
    if not (ids and names):
        return [[str(each) for each in row] for row in rows]
    bad = np.array([any(not 0 <= each < len(names) for each in row) for row in rows])
    refuse(bad, values, here, f"allowed are 0 to {len(names) - 1} ({listed(names)}); correct the row")
    return [[names[each] for each in row] for row in rows]


def _of_indicators(table: pa.Table, task: MultiLabelTask, where: str) -> Lists:
    """Return the names of the columns in which a row has 1, or ``true``."""
    rows: Lists = [[] for _ in range(table.num_rows)]
    for name in task.labels:
        values, here = table.column(name), f"{where}: column {name!r}"
        given = values.cast(pa.int64()) if pa.types.is_boolean(values.type) else as_numbers(values)
        rule = "the column of a label has 1 where a row has it and 0 where not; correct the row"
        if given.null_count:
            refuse(np.asarray(given.is_null()), values, here, rule)
        if not (pa.types.is_integer(given.type) or pa.types.is_floating(given.type)):
            raise DataError(f"{here}: {values[0].as_py()!r}; {rule}, or choose other columns with data.label")
        numbers = to_numpy(given)
        refuse((numbers != 0) & (numbers != 1), values, here, rule)
        for row in np.flatnonzero(numbers).tolist():
            rows[row].append(name)
    return rows


def ids_of(names: Lists, task: MultiLabelTask, where: str) -> list[list[int]]:
    """Return the ascending ids of the labels of each row.

    Raises:
        DataError: A name is none of ``task.labels``.
    """
    places = {name: place_of(name, task.labels) for name in {name for row in names for name in row}}
    if unknown := sorted(name for name, place in places.items() if place is None):
        row = next(number for number, row in enumerate(names) if unknown[0] in row)
        count = sum(any(name in unknown for name in row) for row in names)
        raise DataError(
            f"{where}: row {row} (counted from 0) has the label {unknown[0]!r} ({count} such rows of "
            f"{len(names)}); allowed are {listed(task.labels)}; correct the row, or task.labels"
        )
    return [sorted({place for name in row if (place := places[name]) is not None}) for row in names]


def names_in_list(table: pa.Table, column: str) -> tuple[str, ...]:
    """Return the names of a list of ``ClassLabel`` in a table's schema, by id; empty if it has none."""
    try:
        feature = json.loads((table.schema.metadata or {})[METADATA])["info"]["features"][column]
        inner = feature[0] if isinstance(feature, list) else feature["feature"]
        return tuple(map(str, inner["names"]))
    except (KeyError, TypeError, ValueError, IndexError):
        return ()
