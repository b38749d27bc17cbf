"""Kinds of rows: the columns that a task reads, and their validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qexp.config import (
    EmbeddingTask,
    MultiLabelTask,
    QuestionTask,
    RetrievalTask,
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
    retrieval_rows,
    tagged_rows,
    text_rows,
    translation_rows,
)
from qexp.data.sources.tables import Tables

FORMS: Mapping[type[Task], Any] = {
    EmbeddingTask: embedding_rows,
    MultiLabelTask: multi_label_rows,
    QuestionTask: question_rows,
    RetrievalTask: retrieval_rows,
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


JOINED: Mapping[type[Task], Callable[..., Tables]] = {RetrievalTask: retrieval_rows.joined}
"""By class of task, what makes the tables of splits from those of files, where these are others."""


def form_of(task: Task, split: str | None = None) -> Any:
    """Return the module for the rows of a task, or the columns of one of its tables, where these differ."""
    form = FORMS[type(task)]
    return form.form_of_split(task, split) if split is not None and type(task) in JOINED else form
