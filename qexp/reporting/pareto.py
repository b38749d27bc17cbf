"""Pareto front of points with a cost and a score."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points (cost, score) on the Pareto front, by ascending cost.

    A point is on the front unless another one costs no more, scores no less, and is better in one of the two.
    Points that are equal in both are either all on the front or all off it.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    indices: list[int] = []
    for index in order:
        if not indices or points[index][1] > points[indices[-1]][1] or points[index] == points[indices[-1]]:
            indices.append(index)
    return indices
