"""The Pareto front agrees with its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qexp.reporting.pareto import front

few = st.integers(0, 6).map(float)  # so that many points are equal in one or both
points = st.lists(st.tuples(few, few) | st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), max_size=30)


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(points)
def test_on_the_front_is_who_is_beaten_by_nobody(points: list[tuple[float, float]]) -> None:
    expected = {
        index for index, point in enumerate(points) if not any(beats(other, point) for other in points)
    }
    found = front(points)
    assert len(found) == len(set(found))
    assert set(found) == expected


@given(points)
def test_cost_and_score_rise_along_the_front(points: list[tuple[float, float]]) -> None:
    along = [points[index] for index in front(points)]
    assert along == sorted(along)
    assert [score for _, score in along] == sorted(score for _, score in along)


@given(points, st.randoms())
def test_the_order_of_the_points_does_not_matter(points: list[tuple[float, float]], chance: object) -> None:
    mixed = list(points)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert [mixed[index] for index in front(mixed)] == [points[index] for index in front(points)]


def test_a_small_example() -> None:
    assert front([(23.0, 86.0), (90.0, 88.0), (25.0, 85.0), (90.0, 87.0), (23.0, 86.0)]) == [0, 4, 1]
    assert front([]) == []
