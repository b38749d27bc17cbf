"""Kinds of rows: the columns that a task reads, and their validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qexp.config import (
    EmbeddingTask,
    MultiLabelTask,
    QuestionTask,
    Task,
    TextTask,
    TokenTask,
    TranslationTask,
)
from qexp.data.sources import (
    embedding_rows,
    label_lists,
    labels,
    multi_label_rows,
    question_rows,
    tagged_rows,
    text_rows,
    translation_rows,
)

FORMS: Mapping[type[Task], Any] = {
    EmbeddingTask: embedding_rows,
    MultiLabelTask: multi_label_rows,
    QuestionTask: question_rows,
    TextTask: text_rows,
    TokenTask: tagged_rows,
    TranslationTask: translation_rows,
}
"""By class of task, the module that names the ``columns`` to read and validates a table (``checked``)."""


COMPLETED: Mapping[type[Task], Callable[..., tuple[Task, tuple[str, ...]]]] = {
    MultiLabelTask: label_lists.completed,
    TextTask: labels.completed,
    TokenTask: tagged_rows.completed,
}
"""By class of task, what fills in the settings that the rows tell, and returns sentences on them."""


def form_of(task: Task) -> Any:
    """Return the module for the rows of a task."""
    return FORMS[type(task)]
