"""Validation of columns; each error names the table, the column, the first bad row and how many there are."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

from qexp.data.arrow import as_strings, from_numpy, is_text, nulls
from qexp.errors import DataError

ID_COLUMNS = ("idx", "id")
"""Columns with row ids; the first that holds integers is used."""


def check_columns(present: Sequence[str], wanted: Sequence[str], where: str, *, fields: str) -> None:
    """Check that every wanted column occurs exactly once.

    Args:
        present: Columns of the table.
        wanted: Columns that are read.
        where: Name of the table in error messages.
        fields: Fields of the experiment that select other columns, as error messages name them.

    Raises:
        DataError: A column is missing or occurs more than once.
    """
    for name in wanted:
        check_column(present, name, where, f"rename the column{fields and f', or set {fields}'}")


def check_column(present: Sequence[str], name: str, where: str, action: str) -> None:
    """Check that a column occurs exactly once; ``action`` is what to do if it is missing.

    Raises:
        DataError: The column is missing or occurs more than once.
    """
    if name not in present:
        nearest = difflib.get_close_matches(name, present, n=2)
        present = [*nearest, *(each for each in present if each not in nearest)]
        hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
        raise DataError(
            f"{where}: no column {name!r}; present are {', '.join(present) or 'none'}; {action}{hint}"
        )
    if present.count(name) > 1:
        raise DataError(f"{where}: {present.count(name)} columns are called {name!r}; keep one")


def check_rows(table: pa.Table, where: str) -> None:
    """Check that the table is not empty.

    Raises:
        DataError: The table has no rows.
    """
    if table.num_rows == 0:
        raise DataError(f"{where}: zero rows; write the split again, or choose another")


def refuse(bad: np.ndarray[Any, Any], values: pa.ChunkedArray, here: str, rule: str) -> None:
    """Raise a :class:`~qexp.errors.DataError` with ``rule`` if any row is bad, bool [rows]."""
    if bad.any():
        first = int(np.argmax(bad))
        count = f"{int(bad.sum())} such rows of {len(bad)}"
        raise DataError(f"{here}, row {first} (counted from 0): {values[first].as_py()!r} ({count}); {rule}")


def refuse_twice(
    ids: pa.ChunkedArray,
    here: str,
    rule: str = "ids tell rows apart: give each row its own, or number the rows with data.columns={id: null}",
) -> None:
    """Raise a :class:`~qexp.errors.DataError` with ``rule`` if an id occurs twice."""
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    numbers = np.asarray(ids.combine_chunks().dictionary_encode().indices)
    first = np.zeros(len(numbers), bool)
    first[np.unique(numbers, return_index=True)[1]] = True
    refuse(~first, ids, here, f"it is the id of an earlier row; {rule}")


def row_ids(table: pa.Table, where: str) -> pa.ChunkedArray:
    """Return the source's integer id of each row, int64, or row numbers if it has none.

    Raises:
        DataError: An id occurs twice.
    """
    for name in ID_COLUMNS:
        if table.column_names.count(name) == 1:
            values = as_numbers(table.column(name))
            if pa.types.is_signed_integer(values.type) and not values.null_count:
                refuse_twice(values, f"{where}: column {name!r}")
                return values.cast(pa.int64())
    return from_numpy(np.arange(table.num_rows, dtype=np.int64))


def as_numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of texts as int64 or float64 if all of them are such numbers, else as it is.

    Files without types, such as CSV, have texts only.
    """
    if not is_text(values.type):
        return values
    for kind in (pa.int64(), pa.float64()):
        try:
            return as_strings(values).cast(kind)
        except pa.ArrowInvalid:
            continue
    return values


def texts(values: pa.ChunkedArray, here: str, *, fields: str) -> pa.ChunkedArray:
    """Return a text column as strings, after checking that it is valid UTF-8 without nulls.

    Raises:
        DataError: The column is not text, has nulls or is not UTF-8.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    refuse(nulls(values), values, here, "every row needs a text; the empty text is allowed")
    if not is_text(values.type):
        raise DataError(f"{here}: its type is {values.type}; text is a string; cast it, or set {fields}")
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"{here}: {error}; write the text as UTF-8") from error
    return as_strings(values)
