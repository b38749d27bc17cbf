"""Validation of question answering rows: questions, contexts that may hold the answer, and gold answers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

from qexp.config import QuestionTask
from qexp.data.arrow import as_strings, is_text, nulls, to_numpy
from qexp.data.sources import gold_answers, questions
from qexp.data.sources.validation import check_columns, check_rows, refuse, refuse_twice
from qexp.errors import DataError

FIELDS = ""
"""Empty: the columns are those of SQuAD, and no field of the experiment selects others."""


OPTIONAL = ("id", gold_answers.START)
"""Columns that are read where there are any."""


def columns(task: QuestionTask) -> tuple[str, ...]:
    """Return the columns that are read."""
    return ("question", "context", "answers")


def texts_in(task: QuestionTask) -> tuple[str, ...]:
    """Return the columns that hold texts, whatever their values look like."""
    return ("question", "context")


def split_by(task: QuestionTask) -> tuple[str, ...]:
    """Return the columns by which the rows of one file are divided: rows that share them stay together."""
    return ("context",)


def check(table: pa.Table, task: QuestionTask, where: str) -> None:
    """Check that the table has rows, and each column that is read once.

    Raises:
        DataError: It has not.
    """
    check_columns(table.column_names, columns(task), where, fields=FIELDS)
    check_rows(table, where)


def checked(table: pa.Table, task: QuestionTask, where: str) -> pa.Table:
    """Return the table in canonical form: ``id`` (string), ``question``, ``context`` and ``answers``.

    ``answers`` is a struct of two lists, ``text`` and ``answer_start``; the table's may have one of the other
    forms of :func:`gold_answers.with_lists`. Errors in single texts or answers are
    detected when windows are cut: such rows are skipped and counted there.

    Raises:
        DataError: A column is missing or of another type, or a question has no answer although
            ``task.unanswerable`` is false.
    """
    check(table, task, where)
    try:
        table = gold_answers.with_lists(table)
        questions.check_columns(table, answers=True)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    answers = gold_answers.canonical(table.column("answers"))
    if task.unanswerable:
        answers = gold_answers.without_empty_texts(answers)
    else:
        texts = pa.chunked_array([chunk.field("text") for chunk in answers.chunks])
        empty = nulls(answers) | (to_numpy(pc.fill_null(pc.list_value_length(texts), 0)) == 0)
        rule = "every question needs an answer; drop the row, or set task.unanswerable=true"
        refuse(empty, answers, f"{where}: column 'answers'", rule)
    texts = {name: as_strings(table.column(name)) for name in ("question", "context")}
    return pa.table({"id": _ids(table, where), **texts, "answers": answers})


def _ids(table: pa.Table, where: str) -> pa.ChunkedArray:
    """Return the ids as strings; row numbers if the table has none."""
    if table.column_names.count("id") == 1 and not table.column("id").null_count:
        ids = table.column("id")
        ids = as_strings(ids) if is_text(ids.type) else ids.cast(pa.string())
        refuse_twice(ids, f"{where}: column 'id'")
        return ids
    return pa.chunked_array([pa.array(np.arange(table.num_rows)).cast(pa.string())])
