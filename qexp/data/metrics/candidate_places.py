"""Places of a query's candidates among each other, from the scores of all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]


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


def reordered(candidate: Array, reference: Array) -> NDArray[np.bool_]:
    """Return which queries have their documents in another order, bool [queries], from scores by query."""
    counts = np.array([len(row) for row in candidate], np.int64)
    one, other = (places(np.concatenate([*map(np.asarray, side)]), counts) for side in (candidate, reference))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return np.asarray(np.logical_or.reduceat(one != other, starts))
