"""Histograms of differences between logits, compared with the definition of their bins."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qexp.records.schema import BINS_OF_DECADE
from qexp.tasks.difference_histogram import LARGEST, SMALLEST, histogram_of


def test_each_row_is_in_the_bin_between_whose_ends_it_lies() -> None:
    differences = 10 ** np.random.default_rng(0).uniform(-8, 3, 500)
    found = histogram_of(differences)
    assert (found["below"], sum(found["counts"])) == (0, 500)
    assert found["counts"][0] and found["counts"][-1]
    for place, count in enumerate(found["counts"], found["first"]):
        low, high = (10 ** (end / BINS_OF_DECADE) for end in (place, place + 1))
        assert count == ((differences >= low) & (differences < high)).sum()
    assert json.loads(json.dumps(found)) == found


def test_what_has_no_bin_is_counted_or_left_out() -> None:
    found = histogram_of(np.array([0.0, 1e-12, 2e-9, np.inf, np.nan, 1e30]))
    assert (found["below"], sum(found["counts"])) == (2, 2)
    assert found["first"] == BINS_OF_DECADE * SMALLEST + 1
    assert found["first"] + len(found["counts"]) == BINS_OF_DECADE * LARGEST


@pytest.mark.parametrize("differences", [[], [0.0, 0.0], [np.nan]])
def test_without_a_difference_there_are_no_bins(differences: list[float]) -> None:
    found = histogram_of(np.array(differences))
    assert found["counts"] == []
    assert found["below"] == differences.count(0.0)
