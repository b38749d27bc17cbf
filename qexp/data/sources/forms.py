"""Kinds of rows: the columns that a task reads, and their validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qexp.config import EmbeddingTask, QuestionTask, Task, TextTask, TranslationTask
from qexp.data.sources import embedding_rows, question_rows, text_rows, translation_rows

FORMS: Mapping[type[Task], Any] = {
    EmbeddingTask: embedding_rows,
    QuestionTask: question_rows,
    TextTask: text_rows,
    TranslationTask: translation_rows,
}
"""By class of task, the module that names the ``columns`` to read and validates a table (``checked``)."""


def form_of(task: Task) -> Any:
    """Return the module for the rows of a task."""
    return FORMS[type(task)]
