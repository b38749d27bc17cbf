"""Conversions between Arrow columns and numpy arrays, without a copy where possible.

pyarrow's own conversions (``pa.array``, ``to_numpy``, ``np.asarray``) import pandas, where it is installed,
to check for pandas objects: a quarter of a second of every start. These functions do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

Array = np.ndarray[Any, Any]


def to_numpy(column: pa.ChunkedArray) -> Array:
    """Return a column without nulls as an array, [rows], of the same type; read-only if it is not a copy."""
    parts = [np.from_dlpack(chunk) for chunk in column.chunks if len(chunk)]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, column.type.to_pandas_dtype())


def from_numpy(numbers: Array) -> pa.ChunkedArray:
    """Return a column without nulls that shares the memory of the array, which must not change any more."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(numbers))]
    array = pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), len(numbers), buffers)
    return pa.chunked_array([array])


def nulls(column: pa.ChunkedArray) -> Array:
    """Return which rows of a column are null, bool [rows]."""
    if column.null_count == 0:
        return np.zeros(len(column), bool)
    return np.asarray(column.is_null())


def from_texts(texts: Sequence[str]) -> pa.ChunkedArray:
    """Return a column of strings, encoded as UTF-8."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)]).astype(np.int32)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.chunked_array([pa.Array.from_buffers(pa.string(), len(texts), buffers)])
