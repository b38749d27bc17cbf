"""Rankings of documents, and their metrics as trec_eval defines them.

Names and cutoffs are those of BEIR and MTEB, which compute them with trec_eval's code (pytrec_eval): nDCG
with the grade itself as the gain (Järvelin and Kekäläinen 2002), recall, reciprocal rank and average
precision. A document is relevant if its grade is above 0. Tests hold the numbers against pytrec_eval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Judgments = Sequence[Mapping[str, Any]]
"""Judged documents of a query: ``document`` (an id) and ``relevance`` (a grade)."""

FIRST = 10
"""Documents of a ranking that the gate compares, and that predictions of new queries show."""
SCORES_AT_ONCE = 2**24
"""Scores that are held in memory at once, 8 bytes each."""


@dataclass(frozen=True)
class Rankings:
    """Best documents of each query, the best one first.

    Attributes:
        documents: Ids of the documents, a tuple for each query.
        scores: Their cosines, a float32 array for each query.
    """

    documents: list[tuple[str, ...]]
    scores: list[NDArray[np.float32]]


def rank(
    queries: Array, documents: Array, ids: Sequence[str], top_k: int, *, without: Sequence[str | None]
) -> Rankings:
    """Rank documents by the cosine of their vectors with that of each query.

    Cosines are computed in double precision and rounded to float32, so that equal texts tie. Of documents
    with one score, the one with the larger id comes first, compared as bytes: trec_eval's order.

    Args:
        queries: Vectors of the queries, [queries, D].
        documents: Vectors of the documents, [documents, D].
        ids: Ids of the documents.
        top_k: Length of a ranking.
        without: Id of a document that each query leaves out; None leaves out none.
    """
    order = np.array(sorted(range(len(ids)), key=lambda row: ids[row].encode(), reverse=True), np.int64)
    names = np.array(ids, object)[order]
    places = {name: place for place, name in enumerate(names)}
    found = Rankings([], [])
    for start, scores in _cosines(queries, documents[order]):
        for row, of_query in enumerate(scores, start):
            if (ignored := without[row]) is not None and ignored in places:
                of_query[places[ignored]] = -np.inf
            best = _best(of_query, top_k)
            found.documents.append(tuple(names[best]))
            found.scores.append(of_query[best])
    return found


def _cosines(queries: Array, documents: Array) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the number of the first query, and the cosines of some queries with all documents, float32."""
    ours, theirs = _unit(queries), _unit(documents)
    at_once = max(1, SCORES_AT_ONCE // max(1, len(documents)))
    for start in range(0, len(ours), at_once):
        yield start, (ours[start : start + at_once] @ theirs.T).astype(np.float32)


def _unit(vectors: Array) -> Floats:
    """Return vectors divided by their norm, once more and in double precision."""
    precise = vectors.astype(np.float64)
    norms = np.linalg.norm(precise, axis=1, keepdims=True)
    return np.asarray(precise / np.where(norms == 0, 1, norms))


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the places of the largest scores, the first of equal ones first; those of -inf are left out."""
    last = max(0, len(scores) - count)
    floor = np.partition(scores, last)[last]
    candidates = np.flatnonzero((scores >= floor) & (scores > -np.inf))
    return candidates[np.argsort(-scores[candidates], kind="stable")][:count]


def overlaps(ours: Array, theirs: Array, count: int) -> Floats:
    """Return the share of the first ``count`` documents that two rankings have in common, [queries]."""
    pairs = zip(ours, theirs, strict=True)
    return np.array(
        [
            len({*one[:count]} & {*other[:count]}) / max(1, min(count, len(one), len(other)))
            for one, other in pairs
        ]
    )


def _grades(ranking: Sequence[str], judged: Judgments) -> tuple[Floats, Floats]:
    """Return the grade of each ranked document, 0 where there is none, and those of the relevant ones."""
    grades = {each["document"]: max(0, each["relevance"]) for each in judged}
    relevant = [grade for grade in grades.values() if grade > 0]
    return np.array([grades.get(name, 0) for name in ranking], np.float64), np.array(relevant, np.float64)


def _ndcg(count: int, ranked: Floats, relevant: Floats) -> float:
    """Return trec_eval's ``ndcg_cut``: gains divided by the logarithm of the rank plus 1, to base 2."""
    ideal = np.sort(relevant)[::-1][:count]
    gains = ranked[:count]
    discounts = 1 / np.log2(np.arange(2, count + 2))
    best = float(ideal @ discounts[: len(ideal)])
    return float(gains @ discounts[: len(gains)]) / best if best else 0.0


def _recall(count: int, ranked: Floats, relevant: Floats) -> float:
    return float((ranked[:count] > 0).sum()) / len(relevant) if len(relevant) else 0.0


def _reciprocal_rank(count: int, ranked: Floats, relevant: Floats) -> float:
    hits = np.flatnonzero(ranked[:count] > 0)
    return 1.0 / (int(hits[0]) + 1) if len(hits) else 0.0


def _average_precision(ranked: Floats, relevant: Floats) -> float:
    hits = np.flatnonzero(ranked > 0)
    return float((np.arange(1, len(hits) + 1) / (hits + 1)).sum()) / len(relevant) if len(relevant) else 0.0


RANKING: Mapping[str, Callable[[Floats, Floats], float]] = {
    "ndcg_at_10": partial(_ndcg, 10),
    "recall_at_10": partial(_recall, 10),
    "recall_at_100": partial(_recall, 100),
    "mrr_at_10": partial(_reciprocal_rank, 10),
    "map": _average_precision,
}
"""By name of the metric, the value of one query, 0 to 1; that of a query without a relevant document is 0."""


def of_queries(name: str, predictions: Array, labels: Array) -> Floats:
    """Return a metric of each query, 0 to 1, [queries, 1].

    Args:
        name: Name of the metric in :data:`RANKING`.
        predictions: Ids of the ranked documents of each query, the best one first.
        labels: :data:`Judgments` of each query.
    """
    pairs = zip(predictions, labels, strict=True)
    return np.array([RANKING[name](*_grades(ranking, judged)) for ranking, judged in pairs])[:, None]
