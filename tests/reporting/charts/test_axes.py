"""Axes: positions of numbers, and round ticks."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.scale import AsinhTransform

from qexp.reporting.charts.axes import printed, round_numbers, ruler, scale_of

numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20)


@given(numbers)
def test_every_number_stands_on_the_line_in_its_order(values: list[float]) -> None:
    scale = scale_of(values)
    line = ruler(scale, values, 0, 400)
    places = [line.at(value) for value in sorted(values)]
    assert all(0 <= place <= 400 for place in places)
    assert places == sorted(places)
    ticks = line.ticks()
    assert len(ticks) <= 6
    assert ticks == sorted(ticks)
    assert all(-1 <= line.at(tick) <= 401 for tick in ticks)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_round_numbers_are_evenly_apart_and_not_too_few(low: float, width: float, most: int) -> None:
    found = round_numbers(low, low + width, most)
    assert most / 5 - 1 <= len(found) <= most
    steps = [(b - a) / width for a, b in pairwise(found)]
    assert all(step == pytest.approx(steps[0], abs=1e-6) for step in steps)


def test_round_numbers_of_known_ranges() -> None:
    assert round_numbers(0, 1, 6) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert round_numbers(73, 88, 6) == [75, 80, 85]
    assert [printed(value) for value in round_numbers(-0.1, 0.1, 5)] == ["-0.1", "-0.05", "0", "0.05", "0.1"]


def test_a_scale_shows_what_it_has_to() -> None:
    assert scale_of([22, 90]) == "linear"
    assert scale_of([1, 2, 3, 900]) == "log"
    assert scale_of([-1, 2, 3, 900]) == "asinh"
    assert scale_of([0, 0]) == "linear"


@pytest.mark.parametrize("value", [-300.0, -1.0, 0.0, 0.5, 40.0])
def test_the_asinh_scale_is_the_one_of_matplotlib(value: float) -> None:
    line = ruler("asinh", [-300, 300], -1, 1, pad=0)
    bent = AsinhTransform(1.0).transform_non_affine(np.array([value, 300.0]))
    assert math.isclose(line.at(value), bent[0] / bent[1], abs_tol=1e-12)
