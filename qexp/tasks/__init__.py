"""Adapters of all kinds of task, by the class of their config section.

Each is imported only for a task of its kind, as the one for translation imports half of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from qexp.tasks.base import TaskAdapter


def _texts(task: TextTask) -> TaskAdapter:
    from qexp.tasks.classification import TextAdapter

    return TextAdapter(task)


def _label_sets(task: MultiLabelTask) -> TaskAdapter:
    from qexp.tasks.multi_label import MultiLabelAdapter

    return MultiLabelAdapter(task)


def _embeddings(task: EmbeddingTask) -> TaskAdapter:
    from qexp.tasks.embedding import EmbeddingAdapter

    return EmbeddingAdapter(task)


def _questions(task: QuestionTask) -> TaskAdapter:
    from qexp.tasks.question_answering import QuestionAdapter

    return QuestionAdapter(task)


def _retrieval(task: RetrievalTask) -> TaskAdapter:
    from qexp.tasks.retrieval import RetrievalAdapter

    return RetrievalAdapter(task)


def _rerankings(task: RerankingTask) -> TaskAdapter:
    from qexp.tasks.reranking import RerankingAdapter

    return RerankingAdapter(task)


def _tags(task: TokenTask) -> TaskAdapter:
    from qexp.tasks.token_classification import TokenAdapter

    return TokenAdapter(task)


def _translations(task: TranslationTask) -> TaskAdapter:
    from qexp.tasks.translation import TranslationAdapter

    return TranslationAdapter(task)


FAMILIES: Mapping[type[Task], Callable[[Any], TaskAdapter]] = {
    EmbeddingTask: _embeddings,
    MultiLabelTask: _label_sets,
    QuestionTask: _questions,
    RerankingTask: _rerankings,
    RetrievalTask: _retrieval,
    TextTask: _texts,
    TokenTask: _tags,
    TranslationTask: _translations,
}


def vectors_adapter(task: Task) -> TaskAdapter:
    """Return an adapter whose logits are those of :func:`adapter_for`, at the least cost."""
    if not isinstance(task, RetrievalTask):
        return adapter_for(task)
    from qexp.tasks.retrieval import RetrievalAdapter

    return RetrievalAdapter(task, relevant_only=True)


def adapter_for(task: Task) -> TaskAdapter:
    """Return the adapter of a task, chosen by the class of its config section."""
    return FAMILIES[type(task)](task)
