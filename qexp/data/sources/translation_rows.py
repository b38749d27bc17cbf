"""Validation of translation rows: pairs of a source text and its translation."""

from __future__ import annotations

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import TranslationTask
from qexp.data.arrow import to_numpy
from qexp.data.sources.validation import ID_COLUMNS, check_columns, check_rows, refuse, row_ids, texts

FIELDS = "task.source and task.target"
"""Fields of the experiment that select the columns, as error messages name them."""


OPTIONAL = ID_COLUMNS
"""Columns that are read where there are any."""


def columns(task: TranslationTask) -> tuple[str, ...]:
    """Return the columns that are read."""
    return (task.source, task.target)


def texts_in(task: TranslationTask) -> tuple[str, ...]:
    """Return the columns that hold texts, whatever their values look like."""
    return (task.source, task.target)


def split_by(task: TranslationTask) -> tuple[str, ...]:
    """Return the columns by which the rows of one file are divided: rows that share them stay together."""
    return (task.source,)


def check(table: pa.Table, task: TranslationTask, where: str) -> None:
    """Check that the table has rows, and each column that is read once.

    Raises:
        DataError: It has not.
    """
    check_columns(table.column_names, columns(task), where, fields=FIELDS)
    check_rows(table, where)


def checked(table: pa.Table, task: TranslationTask, where: str) -> pa.Table:
    """Return the table in canonical form: ``id`` (int64), ``task.source`` and ``task.target`` (strings).

    Raises:
        DataError: A column is missing or not text, or one side of a pair is empty or blank.
    """
    check(table, task, where)
    form = {"id": row_ids(table, where)}
    for name, field in ((task.source, "task.source"), (task.target, "task.target")):
        here = f"{where}: column {name!r}"
        form[name] = texts(table.column(name), here, fields=field)
        _refuse_blank(form[name], here)
    return pa.table(form)


def _refuse_blank(values: pa.ChunkedArray, here: str) -> None:
    import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

    length = to_numpy(pc.utf8_length(pc.utf8_trim_whitespace(values)))
    refuse(length == 0, values, here, "both sides of a pair need a text; fill it in or drop the row")
