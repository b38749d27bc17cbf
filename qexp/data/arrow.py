"""Conversions between Arrow columns and numpy arrays, without a copy where possible.

pyarrow's own conversions (``pa.array``, ``to_numpy``, ``np.asarray``) import pandas, where it is installed,
to check for pandas objects: a quarter of a second of every start. These functions do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


_OFFSETS = 2**31 - 1
"""Most bytes of text in one chunk of ``string``, whose offsets have 32 bits."""


def as_strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of texts of any of Arrow's types as ``string``, in as many chunks as it needs."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.type == pa.string():
        return column
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())  # pyarrow 21 cannot tell the bytes of views
    return pa.chunked_array([part for chunk in column.chunks for part in _strings(chunk)], pa.string())


def _strings(chunk: pa.Array) -> Iterator[pa.Array]:
    if chunk.nbytes > _OFFSETS and len(chunk) > 1:
        half = len(chunk) // 2
        yield from _strings(chunk.slice(0, half))
        yield from _strings(chunk.slice(half))
    else:
        yield chunk.cast(pa.string())


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's types of text, or a dictionary of such."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def indicators(lists: pa.ChunkedArray, count: int) -> Array:
    """Return a column of lists of ids below ``count``, without nulls, as 1 and 0, float32 [rows, count]."""
    table, start = np.zeros((len(lists), count), np.float32), 0
    for chunk in lists.chunks:
        offsets = np.asarray(chunk.offsets)
        ids = np.asarray(chunk.flatten())
        table[start + np.repeat(np.arange(len(chunk)), np.diff(offsets)), ids.astype(np.int64)] = 1
        start += len(chunk)
    return table


def lists_of(ids: Sequence[Sequence[int]]) -> pa.ChunkedArray:
    """Return a column of lists of int64."""
    offsets = np.cumsum([0, *map(len, ids)]).astype(np.int32)
    values = np.array([each for row in ids for each in row], np.int64)
    arrays = [from_numpy(offsets).combine_chunks(), from_numpy(values).combine_chunks()]
    return pa.chunked_array([pa.ListArray.from_arrays(*arrays)])
