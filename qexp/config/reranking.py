"""Section of a task that orders the documents of a query."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from qexp.config.task import Task

THRESHOLD = 0.5
"""Default of ``threshold``."""


class RerankingTask(Task):
    """Reranking: a cross-encoder scores pairs of a query and a document by one logit."""

    kind: Literal["reranking"]
    """Tag of the section."""
    text: tuple[str, str] = ("query", "document")
    """Columns with the query and the document, in the order in which the model reads them."""
    label: str = "label"
    """Column with the relevance of the document, a number from 0 (not relevant) on; above 0 is relevant."""
    positive: str = "positive"
    """Column with the list of relevant documents, in files with a row for each query."""
    negative: str = "negative"
    """Column with the list of documents that are not relevant, likewise."""
    query_id: str = "query_id"
    """Column by which rows belong to one query, where a file has it; else equal queries do."""
    max_relevance: float | None = Field(default=None, gt=0)
    """Relevance whose target in training is 1; null is the largest of the train split. Targets are
    ``relevance / max_relevance``, as binary cross-entropy needs them, cut at 1."""
    threshold: float = Field(default=THRESHOLD, gt=0, lt=1)
    """Sigmoid of the logit above which a user takes a document; the report on shifted scores says which
    threshold of a quantized model takes as many."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of outputs: none, as the only one is a score."""
        return ()

    @property
    def outputs(self) -> int:
        """Width of the head."""
        return 1

    @property
    def largest(self) -> float:
        """Relevance whose target in training is 1, of a task whose rows are known."""
        assert self.max_relevance is not None, "the source of the rows fills it in"
        return self.max_relevance

    @property
    def without_decoding(self) -> Self:
        """The task with the default threshold."""
        return self.model_copy(update={"threshold": THRESHOLD})
