"""Retrieval: rankings of a corpus by the cosine of vectors, and their metrics against judgments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.artifacts.types import Tokens
from qexp.config import CORPUS, RetrievalTask
from qexp.data.batches import EVALUATION_BATCH, ProgressOfRows
from qexp.data.metrics.corpus_ranking import FIRST, Rankings, overlaps, rank
from qexp.data.metrics.ranking import Judgments
from qexp.data.metrics.vectorized import measures_for, observed
from qexp.data.tokenization.retrieval import document_ids, judgments
from qexp.data.tokenization.texts import TokenSplit
from qexp.models.inference import split_logits
from qexp.tasks.base import Array, ForwardFn, Predictions
from qexp.tasks.embedding import BiEncoderAdapter

SAME_SHARE = 0.8
"""Smallest share of the first documents that two rankings have in common and still count as the same.

As for ranks of cosines, a larger one would not hold between two computations of one quantized model.
"""


class RetrievalAdapter(BiEncoderAdapter[RetrievalTask]):
    """Adapter for retrieval. Batches are of texts, to train on and to evaluate.

    Args:
        task: Task of the rows.
        relevant_only: Whether to rank only the most relevant document of each query, whose vectors are those
            of a whole evaluation: for comparisons that read vectors alone.
    """

    def __init__(self, task: RetrievalTask, *, relevant_only: bool = False) -> None:
        super().__init__(task)
        self.relevant_only = relevant_only

    def predict(
        self,
        run: ForwardFn,
        tokens: Tokens,
        name: str,
        *,
        rows: int | None,
        advance: Callable[..., None],
        batch_size: int = EVALUATION_BATCH,
    ) -> Predictions:
        """Return the ranking of each query.

        In place of logits are the vectors of the query and of its most relevant document, one behind the
        other. Unless ``relevant_only``, the whole corpus is embedded, whatever the number of ``rows``.
        """
        queries, documents = (TokenSplit.load(tokens.split(each)) for each in (name, CORPUS))
        judged, ids = judgments(tokens.split(name), rows), document_ids(tokens.split(CORPUS))
        places = {name: place for place, name in enumerate(ids)}
        relevant = np.array([places[_most_relevant(labels)] for labels in judged.labels], np.int64)
        if self.relevant_only:
            kept, relevant = np.unique(relevant, return_inverse=True)
            documents, ids = documents.take(kept), [ids[place] for place in kept]
        done = ProgressOfRows(advance, rows=len(judged.ids), texts=len(judged.ids) + len(documents))
        of_documents, of_queries = (
            split_logits(run, split, count, pad_id=tokens.pad_id, advance=done, batch_size=batch_size)
            for split, count in ((documents, None), (queries, rows))
        )
        found = self.ranked(of_queries, of_documents, ids, judged.ids)
        broken = int((~np.isfinite(of_queries)).any(axis=1).sum())
        return Predictions(
            np.array(judged.ids, object),
            _objects(found.documents),
            judged.labels,
            np.concatenate([of_queries, of_documents[relevant]], axis=1),
            broken=broken + int((~np.isfinite(of_documents)).any(axis=1).sum()),
            scores=_objects(found.scores),
        )

    def ranked(
        self,
        queries: NDArray[np.float32],
        documents: NDArray[np.float32],
        ids: Sequence[str],
        names: Sequence[str] | None = None,
    ) -> Rankings:
        """Rank documents for the vectors of queries, whose ids are ``names`` if they have any."""
        ignored = names if names is not None and self.task.ignore_identical_ids else [None] * len(queries)
        return rank(queries, documents, ids, self.task.top_k, without=ignored)

    def score(self, found: Predictions) -> dict[str, float | None]:
        """Return the means of the metrics over the queries."""
        measures = measures_for(self.task.kind)
        return {name: observed(measures[name], found.predictions, found.labels) for name in self.task.metrics}

    def same(self, candidate: Predictions, reference: Predictions) -> Array:
        """Return which queries have :data:`SAME_SHARE` of their first documents in common; bool [rows]."""
        return np.asarray(overlaps(candidate.predictions, reference.predictions, FIRST) >= SAME_SHARE)


def _most_relevant(labels: Judgments) -> str:
    """Return the document with the highest grade, the first of several."""
    return str(max(labels, key=lambda each: each["relevance"])["document"])


def _objects(rows: Sequence[Any]) -> Array:
    """Return an array whose entries are the given rows, [rows], whatever their lengths."""
    entries = np.empty(len(rows), object)
    entries[:] = rows
    return entries
