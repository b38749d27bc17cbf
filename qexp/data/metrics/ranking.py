"""Metrics of ranked documents as trec_eval defines them, in shares of 1.

Names and cutoffs are those of BEIR and MTEB, which compute them with trec_eval's code (pytrec_eval): nDCG
with the grade itself as the gain (Järvelin and Kekäläinen 2002), reciprocal rank and average precision. A
document is relevant if its grade is above 0. Tests hold the numbers against pytrec_eval and scikit-learn.

Documents of one query with equal scores are ranked against the model: those of lower relevance come first. So
neither the order of rows nor a model that gives one score to all can gain from ties.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]


def _ndcg(count: int, ranked: Floats, relevant: Floats) -> float:
    """Return trec_eval's ``ndcg_cut``: gains divided by the logarithm of the rank plus 1, to base 2."""
    ideal = np.sort(relevant)[::-1][:count]
    gains = ranked[:count]
    discounts = 1 / np.log2(np.arange(2, count + 2))
    best = float(ideal @ discounts[: len(ideal)])
    return float(gains @ discounts[: len(gains)]) / best if best else 0.0


def _reciprocal_rank(count: int, ranked: Floats, relevant: Floats) -> float:
    hits = np.flatnonzero(ranked[:count] > 0)
    return 1.0 / (int(hits[0]) + 1) if len(hits) else 0.0


def _average_precision(ranked: Floats, relevant: Floats) -> float:
    hits = np.flatnonzero(ranked > 0)
    return float((np.arange(1, len(hits) + 1) / (hits + 1)).sum()) / len(relevant) if len(relevant) else 0.0


RANKING: Mapping[str, Callable[[Floats, Floats], float]] = {
    "ndcg_at_10": partial(_ndcg, 10),
    "mrr_at_10": partial(_reciprocal_rank, 10),
    "map": _average_precision,
}
"""By name of the metric, the value of one query, 0 to 1, from the grades of the ranked documents and those of
all relevant ones; that of a query without a relevant document is 0."""


def ranked_relevance(scores: Sequence[float], relevance: Sequence[float]) -> Floats:
    """Return the relevance of a query's documents, the highest score first, ties against the model."""
    order = np.lexsort((np.asarray(relevance, np.float64), -np.asarray(scores, np.float64)))
    return np.asarray(relevance, np.float64)[order]


def of_candidates(name: str, scores: Array, relevance: Array) -> Floats:
    """Return a metric of each query over its own candidates, 0 to 1, [queries, 1].

    Args:
        name: Name of the metric in :data:`RANKING`.
        scores: Scores of the documents of each query, [queries] sequences.
        relevance: Their relevance, likewise.
    """
    found = np.empty((len(scores), 1))
    for row, (ours, grades) in enumerate(zip(scores, relevance, strict=True)):
        ranked = ranked_relevance(ours, grades)
        found[row] = RANKING[name](ranked, ranked[ranked > 0])
    return found


def ndcg_of_any_order(count: int, relevance: Array) -> float:
    """Return the expected nDCG, 0 to 1, where documents are in random order: a mean over queries.

    Each place has the mean relevance of the query's documents on average.
    """
    values = []
    for grades in relevance:
        given = np.asarray(grades, np.float64)
        values.append(_ndcg(count, np.full(len(given), given.mean()), given[given > 0]))
    return float(np.mean(values))


def places(scores: Array, counts: Array) -> NDArray[np.int64]:
    """Return how many documents of the same query have a higher score, [documents].

    Args:
        scores: Scores of the documents of all queries, one query behind the other.
        counts: Number of documents of each query.
    """
    queries, order, values = _ordered(scores, counts)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    new = np.ones(len(values), bool)
    new[1:] = (values[1:] != values[:-1]) | (queries[1:] != queries[:-1])
    starts = np.maximum.accumulate(np.where(new, np.arange(len(values)), 0))
    found = np.empty(len(values), np.int64)
    found[order] = starts - first[queries]
    return found


def gaps(scores: Array, counts: Array) -> Floats:
    """Return the distance of each score to the nearest other one of its query, [documents].

    Arguments are those of :func:`places`. Infinite for the only document of a query.
    """
    queries, order, values = _ordered(scores, counts)
    steps = np.where(queries[1:] == queries[:-1], values[:-1] - values[1:], np.inf)
    nearest = np.minimum(np.append(np.inf, steps), np.append(steps, np.inf))
    found = np.empty(len(values))
    found[order] = nearest
    return found


def _ordered(scores: Array, counts: Array) -> tuple[Array, Array, Floats]:
    """Return query, place and score of all documents, by query, and the highest score first."""
    of_query = np.repeat(np.arange(len(counts)), counts)
    values = np.asarray(scores, np.float64)
    order = np.lexsort((-values, of_query))
    return of_query[order], order, values[order]


def reordered(ours: Array, theirs: Array) -> NDArray[np.bool_]:
    """Return which queries have their documents in another order, bool [queries], from scores by query."""
    counts = np.array([len(row) for row in ours], np.int64)
    one, other = (places(np.concatenate([*map(np.asarray, side)]), counts) for side in (ours, theirs))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return np.asarray(np.logical_or.reduceat(one != other, starts))
