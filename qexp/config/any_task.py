"""Union of the sections of all kinds of task."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qexp.config.embedding import EmbeddingTask, RetrievalTask
from qexp.config.multi_label import MultiLabelTask
from qexp.config.reranking import RerankingTask
from qexp.config.task import QuestionTask, TextTask
from qexp.config.token_classification import TokenTask
from qexp.config.translation import TranslationTask

AnyTask = Annotated[
    TextTask
    | QuestionTask
    | TranslationTask
    | MultiLabelTask
    | EmbeddingTask
    | RetrievalTask
    | RerankingTask
    | TokenTask,
    Field(discriminator="kind"),
]
