"""Validation of columns; each error names the table, the column, the first bad row and how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.arrow import from_numpy, nulls
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
        if name not in present:
            raise DataError(
                f"{where}: no column {name!r}; present are {', '.join(present) or 'none'}; "
                f"rename the column{fields and f', or set {fields}'}"
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


def row_ids(table: pa.Table) -> pa.ChunkedArray:
    """Return the source's integer id of each row, int64, or row numbers if it has none."""
    for name in ID_COLUMNS:
        if table.column_names.count(name) == 1:
            values = table.column(name)
            if pa.types.is_signed_integer(values.type) and not values.null_count:
                return values.cast(pa.int64())
    return from_numpy(np.arange(table.num_rows, dtype=np.int64))


def texts(values: pa.ChunkedArray, here: str, *, fields: str) -> pa.ChunkedArray:
    """Return a text column as strings, after checking that it is valid UTF-8 without nulls.

    Raises:
        DataError: The column is not text, has nulls or is not UTF-8.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    refuse(nulls(values), values, here, "every row needs a text; the empty text is allowed")
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(kind(values.type) for kind in kinds):
        raise DataError(f"{here}: its type is {values.type}; text is a string; cast it, or set {fields}")
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"{here}: {error}; write the text as UTF-8") from error
    return values.cast(pa.string())
