"""Results that a Record keeps of artifacts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qexp.pipeline.results import MOST_POINTS, thinned


@given(st.lists(st.floats(0, 100), min_size=1, max_size=3 * MOST_POINTS))
def test_thinned_curve_keeps_the_end_and_the_mean(losses: list[float]) -> None:
    curve = thinned(losses)
    assert len(curve["step"]) == len(curve["loss"]) <= MOST_POINTS
    assert curve["step"][-1] == len(losses)
    steps = [end - start for start, end in zip([0, *curve["step"]], curve["step"], strict=False)]
    total = sum(loss * count for loss, count in zip(curve["loss"], steps, strict=True))
    assert abs(total - sum(losses)) <= 1e-6 * max(1.0, sum(losses))


def test_short_curve_is_kept_whole() -> None:
    assert thinned([3.0, 2.0, 1.0]) == {"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0]}
