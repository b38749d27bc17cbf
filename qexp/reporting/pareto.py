"""Which points of a cost and a score no other point beats."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, score) on the Pareto front, by rising cost.

    A point is on it unless another one costs no more and scores no less, and is better in one of the
    two. Points that are equal in both are on it together.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    found: list[int] = []
    for index in order:
        if not found or points[index][1] > points[found[-1]][1] or points[index] == points[found[-1]]:
            found.append(index)
    return found
