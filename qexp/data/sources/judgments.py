"""Documents, queries and relevance judgments as columns, whatever files they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.arrow import as_strings, from_numpy, is_text, nulls
from qexp.data.sources.validation import refuse, refuse_twice
from qexp.errors import DataError

Array = np.ndarray[Any, Any]
JUDGMENTS = pa.list_(pa.struct([("document", pa.string()), ("relevance", pa.int64())]))
"""Type of a query's judgments."""


def row_numbers(count: int) -> pa.ChunkedArray:
    """Return the numbers of rows, int64."""
    return from_numpy(np.arange(count, dtype=np.int64))


def as_ids(values: pa.ChunkedArray, here: str) -> pa.ChunkedArray:
    """Return a column of ids, integers or texts, as strings.

    Raises:
        DataError: An id is null, or of another type.
    """
    refuse(nulls(values), values, here, "every row needs an id; write one, or drop the row")
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_integer(values.type):
        return values.cast(pa.string())
    if not is_text(values.type):
        raise DataError(f"{here}: its type is {values.type}; an id is a string or an integer; cast it")
    return as_strings(values)


def own_ids(values: pa.ChunkedArray, here: str) -> pa.ChunkedArray:
    """Return a column of ids as strings, each of which occurs once.

    Raises:
        DataError: An id is null, of another type, or occurs twice.
    """
    ids = as_ids(values, here)
    refuse_twice(ids, here, "judgments name it: keep one of these rows, or give it another id")
    return ids


def as_relevance(values: pa.ChunkedArray, here: str) -> Array:
    """Return a column of grades, as numbers or texts, int64 [rows].

    Raises:
        DataError: A grade is null or not an integer.
    """
    rule = "a relevance is an integer, and above 0 where the document is relevant; correct or drop the row"
    refuse(nulls(values), values, here, rule)
    texts = values.cast(pa.string()).to_pylist()
    grades = np.array([_integer(text) for text in texts], np.float64)
    refuse(~np.isfinite(grades), values, here, rule)
    return grades.astype(np.int64)


def _integer(text: str) -> float:
    """Return the value of an integer, also of one with a decimal point; else NaN."""
    try:
        value = float(text)
    except ValueError:
        return float("nan")
    return value if value.is_integer() else float("nan")


def judgment_column(rows: Sequence[Sequence[tuple[str, int]]]) -> pa.ChunkedArray:
    """Return a column of :data:`JUDGMENTS` from documents and grades of each query."""
    lists = [[{"document": name, "relevance": grade} for name, grade in row] for row in rows]
    return pa.chunked_array([pa.array(lists, JUDGMENTS)])
