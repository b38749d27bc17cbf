"""Kinds of rows: the columns that a task reads, and their validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qexp.config import (
    EmbeddingTask,
    MultiLabelTask,
    QuestionTask,
    RerankingTask,
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
    reranking_rows,
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
    RerankingTask: reranking_rows,
    RetrievalTask: retrieval_rows,
    TextTask: text_rows,
    TokenTask: tagged_rows,
    TranslationTask: translation_rows,
}
"""By class of task, the module that names the ``columns`` to read and validates a table (``checked``)."""


COMPLETED: Mapping[type[Task], Callable[..., tuple[Task, tuple[str, ...]]]] = {
    MultiLabelTask: label_lists.completed,
    RerankingTask: reranking_rows.completed,
    TextTask: labels.completed,
    TokenTask: tagged_rows.completed,
}
"""By class of task, what fills in the settings that the rows tell, and returns sentences on them."""


JOINED: Mapping[type[Task], Callable[..., Tables]] = {RetrievalTask: retrieval_rows.joined}
"""By class of task, what makes the tables of splits from those of files, where these are others."""


def other_columns(task: Task) -> tuple[str, ...]:
    """Return the columns of another layout in which files may have the rows of a task; empty if none."""
    form = form_of(task)
    return tuple(form.other_columns(task)) if hasattr(form, "other_columns") else ()


def optional_columns(task: Task, split: str) -> tuple[str, ...]:
    """Return the columns that are read where there are any."""
    form = form_of(task, split)
    return (*form.OPTIONAL, *(form.optional(task) if hasattr(form, "optional") else ()))


def form_of(task: Task, split: str | None = None) -> Any:
    """Return the module for the rows of a task, or the columns of one of its tables, where these differ."""
    form = FORMS[type(task)]
    return form.form_of_split(task, split) if split is not None and type(task) in JOINED else form
