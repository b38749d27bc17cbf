"""Validation of multi-label rows: texts with a list of labels, or with a column of 0 and 1 for each label."""

from __future__ import annotations

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import MultiLabelTask
from qexp.data.arrow import as_strings, is_text, lists_of
from qexp.data.sources.label_lists import ids_of, names_of
from qexp.data.sources.validation import ID_COLUMNS, check_columns, check_rows, row_ids, texts
from qexp.errors import DataError

FIELDS = "task.text, task.label and task.labels"
"""Fields of the experiment that select the columns, as error messages name them."""


OPTIONAL = ID_COLUMNS
"""Columns that are read where there are any."""


def columns(task: MultiLabelTask) -> tuple[str, ...]:
    """Return the columns that are read, those of labels last."""
    return (*task.text, *(task.labels if task.label is None else (task.label,)))


def texts_in(task: MultiLabelTask) -> tuple[str, ...]:
    """Return the columns that hold texts, whatever their values look like."""
    return tuple(task.text)


def split_by(task: MultiLabelTask) -> tuple[str, ...]:
    """Return the columns by which the rows of one file are divided: rows that share them stay together."""
    return tuple(task.text)


def separated(table: pa.Table, task: MultiLabelTask, separator: str, where: str) -> pa.Table:
    """Return the table with lists of labels in place of texts in which ``separator`` stands between them.

    Blanks around a label do not count, and an empty text is a row without labels.

    Raises:
        DataError: The labels are no texts.
    """
    if task.label is None or not is_text(table.schema.field(task.label).type):
        kind = "columns of 0 and 1" if task.label is None else str(table.schema.field(task.label).type)
        raise DataError(
            f"data.separator={separator!r}: {where} has labels as {kind}, not as one text; leave it out"
        )
    values = as_strings(table.column(task.label)).to_pylist()
    lists = [
        None if value is None else [name for each in value.split(separator) if (name := each.strip())]
        for value in values
    ]
    place = table.column_names.index(task.label)
    return table.set_column(place, task.label, pa.chunked_array([pa.array(lists, pa.list_(pa.string()))]))


def check(table: pa.Table, task: MultiLabelTask, where: str) -> None:
    """Check that the table has rows, and each column that is read once.

    Raises:
        DataError: It has not.
    """
    check_columns(table.column_names, columns(task), where, fields=FIELDS)
    check_rows(table, where)


def checked(table: pa.Table, task: MultiLabelTask, where: str) -> pa.Table:
    """Return the table in canonical form: ``id`` (int64), the texts, and ``label``.

    ``label`` is a list of the ids of a row's labels in the order of ``task.labels``, ascending, each once.

    Raises:
        DataError: A column, text or label is missing or invalid.
    """
    form = {"id": row_ids(table, where)}
    for name in task.text:
        form[name] = texts(table.column(name), f"{where}: column {name!r}", fields="task.text")
    ids = ids_of(names_of(table, task, where), task, where)
    return pa.table({**form, "label": lists_of(ids)})
