"""Gold labels in the forms that rows have: ids, names and numbers; and what rows tell of a task's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]
from pydantic import ValidationError

from qexp.config import TextTask
from qexp.config.validation_errors import explain
from qexp.data.arrow import Array, as_strings, from_numpy, is_text, nulls, to_numpy
from qexp.data.sources.class_names import names_in, plain
from qexp.data.sources.validation import as_numbers, refuse
from qexp.errors import DataError

NEEDED = "every row needs a label; fill it in or drop the row"
SHOWN = 12
"""Most classes that a message lists."""
_REGRESSION = "a class is an integer or a name; for numbers choose task=regression"


def as_read(values: pa.ChunkedArray, here: str) -> pa.ChunkedArray:
    """Return class labels as integers or as texts.

    Texts that are all integers, and floats without a fraction, are integers: files without types have the
    ones, and columns with gaps the others. Truth values are ``true`` and ``false``.

    Raises:
        DataError: The column is of another type, or a label is missing or has a fraction.
    """
    refuse(nulls(values), values, here, NEEDED)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.string())
    if is_text(values.type):
        values = as_strings(values)
        refuse(to_numpy(pc.utf8_length(pc.utf8_trim_whitespace(values))) == 0, values, here, NEEDED)
        numbers = as_numbers(values)
        # Names such as 007 and 7 are two.
        same = pa.types.is_integer(numbers.type) and numbers.cast(pa.string()).equals(values)
        values = numbers if same or pa.types.is_floating(numbers.type) else values
    if pa.types.is_floating(values.type):
        numbers = to_numpy(values)
        with np.errstate(invalid="ignore"):
            refuse(~(numbers == np.floor(numbers)), values, here, _REGRESSION)
        return from_numpy(numbers.astype(np.int64))
    if not (pa.types.is_integer(values.type) or is_text(values.type)):
        lists = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
        action = "cast the column" + (", or choose task=multi_label for lists of labels" if lists else "")
        raise DataError(f"{here}: its type is {values.type}; {_REGRESSION}; {action}")
    return values


def are_numerals(labels: Sequence[str]) -> bool:
    """Return whether all names of classes are integers, as of ratings from 1 to 5: they are no ids then."""
    return all(label.removeprefix("-").isdecimal() for label in labels)


def rule_of(task: TextTask) -> str:
    """Return the allowed labels as a part of an error message."""
    return f"allowed are {listed([f'{index} ({name})' for index, name in enumerate(task.labels)])}"


def ids_of_names(values: pa.ChunkedArray, task: TextTask, here: str) -> pa.ChunkedArray:
    """Return the class id of each name; case and punctuation count where names differ in nothing else.

    Raises:
        DataError: A name is none of ``task.labels``.
    """
    encoded = as_strings(values if is_text(values.type) else values.cast(pa.string()))
    codes = encoded.combine_chunks().dictionary_encode()
    found = {name: place_of(name, task.labels) for name in codes.dictionary.to_pylist()}
    ids = np.array([-1 if place is None else place for place in found.values()], np.int64)
    ids = ids[to_numpy(pa.chunked_array([codes.indices]))]
    refuse(ids < 0, values, here, f"{rule_of(task)}; correct the row, or task.labels")
    return from_numpy(ids)


def numbers(values: pa.ChunkedArray, here: str) -> Array:
    """Return the labels of a regression as float64 [rows].

    Raises:
        DataError: They are no numbers.
    """
    values = as_numbers(values)
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise DataError(f"{here}: its type is {values.type}; the label of a regression is a number; cast it")
    return to_numpy(values).astype(np.float64)


def completed(task: TextTask, tables: Mapping[str, tuple[str, pa.Table]]) -> tuple[TextTask, tuple[str, ...]]:
    """Return the task with the labels, range and metrics that it leaves open, and sentences on them.

    Classes are those in the schema of the train split, in its order, or else those of its rows, sorted. The
    range of a regression is that of all rows.

    Args:
        task: Task; open are empty ``labels`` and ``metrics``, and a ``label_range`` of None.
        tables: Location, as error messages name it, and table by split.

    Raises:
        DataError: The train split has fewer than two classes, or labels that cannot be read.
    """
    update: dict[str, Any] = {}
    statements: tuple[str, ...] = ()
    if task.kind == "classification" and not task.labels:
        where, table = tables[task.train]
        update["labels"] = names_in(table, task.label) or _classes(table, task, where)
        statements = (f"classes: {listed(update['labels'])} (ids from 0)",)
    if task.kind == "regression" and task.label_range is None:
        update["label_range"] = low, high = _range(tables, task)
        statements = (f"range of labels: {low:g} to {high:g}",)
    if not task.metrics:
        update["metrics"] = (
            ("accuracy", "f1") if len(update.get("labels", task.labels)) == 2 else ("accuracy",)
        )
    if not update:
        return task, ()
    try:
        return TextTask.model_validate({**task.model_dump(), **update}), statements
    except ValidationError as error:
        raise DataError(f"{tables[task.train][0]}: {explain(error)}") from error


def _classes(table: pa.Table, task: TextTask, where: str) -> tuple[str, ...]:
    here = f"{where}: column {task.label!r}"
    found = as_read(table.column(task.label), here)
    names = tuple(str(value) for value in sorted(found.unique().to_pylist()))
    if len(names) < 2:
        raise DataError(
            f"{here}: all {table.num_rows} rows have the class {', '.join(names)}; a classification has at "
            "least two; choose another column with data.label=NAME, or add rows"
        )
    return names


def _range(tables: Mapping[str, tuple[str, pa.Table]], task: TextTask) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for where, table in tables.values():
        values, here = table.column(task.label), f"{where}: column {task.label!r}"
        refuse(nulls(values), values, here, NEEDED)
        found = numbers(values, here)
        refuse(~np.isfinite(found), values, here, "a label is a finite number; correct or drop the row")
        low, high = min(low, found.min(initial=np.inf)), max(high, found.max(initial=-np.inf))
    if not low < high:
        raise DataError(
            f"{next(iter(tables.values()))[0]}: column {task.label!r}: no two rows differ; choose another "
            "column with data.label=NAME"
        )
    return float(low), float(high)


def place_of(name: str, labels: Sequence[str]) -> int | None:
    """Return the id of a name; case and punctuation count where names differ in nothing else."""
    if name in labels:
        return list(labels).index(name)
    alike = [place for place, label in enumerate(labels) if plain(label) == plain(name) != ""]
    return alike[0] if len(alike) == 1 else None


def listed(names: Sequence[str]) -> str:
    """Return names as a part of a message, at most :data:`SHOWN`."""
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])
