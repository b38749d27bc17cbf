"""Validation of question answering rows: questions, contexts that may hold the answer, and gold answers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

from qexp.config import QuestionTask
from qexp.data.arrow import nulls, to_numpy
from qexp.data.sources import questions
from qexp.data.sources.validation import check_columns, check_rows, refuse
from qexp.errors import DataError

FIELDS = ""
"""Empty: the columns are those of SQuAD, and no field of the experiment selects others."""


def columns(task: QuestionTask) -> tuple[str, ...]:
    """Return the columns that are read."""
    return ("question", "context", "answers")


def checked(table: pa.Table, task: QuestionTask, where: str) -> pa.Table:
    """Return the table in canonical form: ``id`` (string), ``question``, ``context`` and ``answers``.

    ``answers`` is a struct of two lists, ``text`` and ``answer_start``. Errors in single texts or answers are
    detected when windows are cut: such rows are skipped and counted there.

    Raises:
        DataError: A column is missing or of another type, or a question has no answer although
            ``task.unanswerable`` is false.
    """
    check_columns(table.column_names, columns(task), where, fields=FIELDS)
    check_rows(table, where)
    try:
        questions.check_columns(table, answers=True)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    answers = table.column("answers")
    if not task.unanswerable:
        texts = pa.chunked_array([chunk.field("text") for chunk in answers.chunks])
        empty = nulls(answers) | (to_numpy(pc.fill_null(pc.list_value_length(texts), 0)) == 0)
        rule = "every question needs an answer; drop the row, or set task.unanswerable=true"
        refuse(empty, answers, f"{where}: column 'answers'", rule)
    return pa.table({"id": _ids(table), **{name: table.column(name) for name in columns(task)}})


def _ids(table: pa.Table) -> pa.ChunkedArray:
    """Return the ids as strings; row numbers if the table has none."""
    if table.column_names.count("id") == 1 and not table.column("id").null_count:
        return table.column("id").cast(pa.string())
    return pa.chunked_array([pa.array(np.arange(table.num_rows)).cast(pa.string())])
