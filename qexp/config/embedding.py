"""Sections of tasks whose texts are embedded in vectors, each by itself."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from qexp.config.task import Task

BI_ENCODERS = ("embedding", "retrieval")
"""Kinds of task with a vector for each text. Their checkpoint embeds texts already, and is not fine-tuned."""
CORPUS = "corpus"
"""Split with the documents of a retrieval, beside those with queries."""
CUTOFF = 100
"""Largest number of documents at which a metric cuts a ranking (``recall_at_100``)."""


class BiEncoderTask(Task):
    """Task of a bi-encoder: each text has a vector, and the cosine of two of them is their score."""

    pooling: Literal["mean", "cls"] = "mean"
    """Vector of a text, before it is divided by its norm: the mean of the last hidden states of its tokens,
    without padding, or that of the first token."""

    @property
    def prompts(self) -> dict[str, str]:
        """Words before texts, by the names that sentence-transformers gives such prompts."""
        return {}


class EmbeddingTask(BiEncoderTask):
    """Embedding of texts: the cosine of the vectors of two texts stands for how alike they are."""

    kind: Literal["embedding"]
    """Tag of the section."""
    text: tuple[str, str]
    """Columns with the two texts that are compared; each text has a vector of its own."""
    label: str = "label"
    """Column with the gold similarity, any number; only its order counts for Spearman's coefficient. Training
    does not read it."""
    prefix: str = Field(default="", exclude_if=lambda prefix: not prefix)
    """Words before every text, if the model was trained with some (E5: ``query: ``)."""

    @property
    def prompts(self) -> dict[str, str]:
        return {"text": self.prefix} if self.prefix else {}


class RetrievalTask(BiEncoderTask):
    """Retrieval: the documents of a corpus are ranked by the cosine of their vectors with that of a query."""

    kind: Literal["retrieval"]
    """Tag of the section."""
    layout: Literal["beir", "squad"] = "beir"
    """Files of the rows: BEIR's ``corpus``, ``queries`` and ``qrels``; or those of SQuAD, where each question
    is a query, the paragraphs of the evaluation splits are the corpus, and one of them is relevant."""
    query_prefix: str = ""
    """Words before every query, if the model was trained with some (E5: ``query: ``)."""
    document_prefix: str = ""
    """Words before every document, likewise (E5: ``passage: ``)."""
    top_k: int = Field(default=1000, ge=CUTOFF)
    """Documents of a ranking, the best ones first; ``map`` reads all of them, as trec_eval does of a run."""
    ignore_identical_ids: bool = False
    """Whether a document with the id of the query is left out of its ranking, as BEIR does for ArguAna and
    Quora, whose queries are documents."""

    @property
    def prompts(self) -> dict[str, str]:
        found = {"query": self.query_prefix, "document": self.document_prefix}
        return {name: prefix for name, prefix in found.items() if prefix}

    @model_validator(mode="after")
    def _splits_are_apart(self) -> Self:
        splits = [self.train, *self.evaluation.values()]
        if self.train in self.evaluation.values():
            raise ValueError(
                f"train={self.train}: its queries are evaluated, too, and calibration may not see them; "
                "name another split, which need not exist: then documents alone are read"
            )
        if CORPUS in splits:
            raise ValueError(
                f"evaluation: {CORPUS!r} is the name of the documents; name a split of the qrels"
            )
        return self
