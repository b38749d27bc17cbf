"""Gold answers of question answering rows in one form, whatever the columns that they come in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

from qexp.data.arrow import as_strings, is_text

ANSWERS = "answers"
START = "answer_start"
"""Column with the first character of the answer, where ``answers`` is a column of texts."""
FORM = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int64()))])


def with_lists(table: pa.Table) -> pa.Table:
    """Return the table with ``answers`` as a struct of two lists, ``text`` and ``answer_start``.

    Taken are such a struct, a list of structs with a text and a start each, and a text; a text begins at the
    column ``answer_start``, or where the context first has it, and an empty one is no answer. Columns of
    other types are returned as they are.
    """
    column = table.column(ANSWERS)
    place = table.column_names.index(ANSWERS)
    if is_text(column.type):
        return table.set_column(place, ANSWERS, _of_texts(table, column))
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        if not _has_fields(column.type.value_type):
            return table
        chunks = [_of_structs(chunk) for chunk in column.chunks]
        return table.set_column(place, ANSWERS, pa.chunked_array(chunks, FORM))
    return table


def without_empty_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of :data:`FORM` in which texts that are all empty are no answer, as empty lists are."""
    texts = pa.chunked_array([chunk.field("text") for chunk in column.chunks])
    if not pc.any(pc.equal(pc.list_flatten(texts), "")).as_py():
        return column
    rows = [
        {"text": [], "answer_start": []} if row and {*(row["text"] or ())} == {""} else row
        for row in column.to_pylist()
    ]
    return pa.chunked_array([pa.array(rows, FORM)])


def canonical(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a checked column of answers with the types of :data:`FORM`, in its order of fields."""
    return pa.chunked_array([_of_lists(chunk) for chunk in column.chunks], FORM)


def _has_fields(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {field.name for field in kind} >= {"text", "answer_start"}


def _of_lists(chunk: pa.Array) -> pa.Array:
    parts = [pc.struct_field(chunk, field.name).cast(field.type) for field in FORM]
    return pa.StructArray.from_arrays(parts, fields=list(FORM), mask=chunk.is_null())


def _of_structs(chunk: pa.Array) -> pa.Array:
    values, offsets = (
        chunk.flatten(),
        np.cumsum([0, *pc.fill_null(pc.list_value_length(chunk), 0).to_pylist()]),
    )
    lists = [
        pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()), pc.struct_field(values, field.name).cast(item)
        )
        for field in FORM
        for item in [field.type.value_type]
    ]
    return pa.StructArray.from_arrays(lists, fields=list(FORM), mask=chunk.is_null())


def _of_texts(table: pa.Table, column: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = as_strings(column)
    contexts = as_strings(table.column("context")).to_pylist()
    starts = table.column(START).to_pylist() if START in table.column_names else [None] * len(texts)
    rows: list[Any] = [
        {"text": [], "answer_start": []}
        if not text
        else {"text": [text], "answer_start": [_start(text, *at)]}
        for text, *at in zip(texts.to_pylist(), contexts, starts, strict=True)
    ]
    return pa.chunked_array([pa.array(rows, FORM)])


def _start(text: str, context: str | None, start: Any) -> int:
    """Return the given start, or the first place in the context; -1 if it has none or is no number."""
    if start in (None, ""):
        return (context or "").find(text)
    return int(start) if str(start).isdecimal() else -1
