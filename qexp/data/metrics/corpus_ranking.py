"""Ranking of a corpus: the documents whose vectors are nearest to that of each query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

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
    queries, documents = _unit(queries), _unit(documents)
    at_once = max(1, SCORES_AT_ONCE // max(1, len(documents)))
    for start in range(0, len(queries), at_once):
        yield start, (queries[start : start + at_once] @ documents.T).astype(np.float32)


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


def overlaps(candidate: Array, reference: Array, count: int) -> Floats:
    """Return the share of the first ``count`` documents that two rankings have in common, [queries]."""
    pairs = zip(candidate, reference, strict=True)
    return np.array(
        [
            len({*one[:count]} & {*other[:count]}) / max(1, min(count, len(one), len(other)))
            for one, other in pairs
        ]
    )
