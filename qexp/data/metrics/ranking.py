"""Metrics of ranked documents as trec_eval defines them, in shares of 1.

Names and cutoffs are those of BEIR and MTEB, which compute them with trec_eval's code (pytrec_eval): nDCG
with the grade itself as the gain (Järvelin and Kekäläinen 2002), recall, reciprocal rank and average
precision. A document is relevant if its grade is above 0. Tests hold the numbers against pytrec_eval and
scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Judgments = Sequence[Mapping[str, Any]]
"""Judged documents of a query: ``document`` (an id) and ``relevance`` (a grade)."""


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
"""By name of the metric, the value of one query, 0 to 1, from the grades of the ranked documents and those of
all relevant ones; that of a query without a relevant document is 0."""
CANDIDATES = ("ndcg_at_10", "mrr_at_10", "map")
"""Metrics of a query's own candidates, all of which are ranked."""


def of_queries(name: str, predictions: Array, labels: Array) -> Floats:
    """Return a metric of each query, 0 to 1, [queries, 1].

    Args:
        name: Name of the metric in :data:`RANKING`.
        predictions: Ids of the ranked documents of each query, the best one first.
        labels: :data:`Judgments` of each query.
    """
    pairs = zip(predictions, labels, strict=True)
    return np.array([RANKING[name](*_grades(ranking, judged)) for ranking, judged in pairs])[:, None]


def _grades(ranking: Sequence[str], judged: Judgments) -> tuple[Floats, Floats]:
    """Return the grade of each ranked document, 0 where there is none, and those of the relevant ones."""
    grades = {each["document"]: max(0, each["relevance"]) for each in judged}
    relevant = [grade for grade in grades.values() if grade > 0]
    return np.array([grades.get(name, 0) for name in ranking], np.float64), np.array(relevant, np.float64)


def ranked_relevance(scores: Sequence[float], relevance: Sequence[float]) -> Floats:
    """Return the relevance of a query's documents, the highest score first.

    Documents with equal scores are ranked against the model: those of lower relevance come first. So neither
    the order of rows nor a model that gives one score to all can gain from ties.
    """
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
    for row, (row_scores, grades) in enumerate(zip(scores, relevance, strict=True)):
        ranked = ranked_relevance(row_scores, grades)
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
