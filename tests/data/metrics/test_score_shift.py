"""Shift of scores: a case by hand, a constant shift, and the threshold that keeps the number of documents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexp.data.metrics.score_shift import acceptance, score_shift, sigmoid

LOGITS = st.lists(st.floats(-30, 30), min_size=2, max_size=40)


def rows(*queries: tuple[float, ...]) -> np.ndarray:
    found = np.empty(len(queries), object)
    found[:] = queries
    return found


def test_a_case_by_hand() -> None:
    reference, shifted = rows((2.0, -1.0, 0.5), (1.0, -2.0)), rows((0.2, -1.0, 0.6), (1.5, -2.0))
    found = score_shift(shifted, reference, 0.5)
    differences = [-1.8, 0.0, 0.1, 0.5, 0.0]
    assert found["logit"]["mean"] == pytest.approx(np.mean(differences))
    assert found["logit"]["median"] == 0
    assert found["logit"]["max_abs"] == pytest.approx(1.8)
    assert found["first_changed"] == 50
    # Of the three pairs of the first query, one is turned: tau is (2 - 1) / 3, and Spearman's 1 - 6 * 2 / 24.
    assert found["kendall"] == pytest.approx((1 / 3 + 1) / 2)
    assert found["spearman"] == pytest.approx((0.5 + 1) / 2)
    assert found["accepted"]["reference"] == found["accepted"]["shifted"] == 3
    assert (found["queries"], found["documents"]) == (2, 5)


def test_a_constant_shift_keeps_every_rank_and_moves_the_threshold() -> None:
    reference = rows((2.0, -1.0, 0.5), (1.0, -2.0))
    shifted = rows(*(tuple(each - 1.5 for each in row) for row in reference))
    found = score_shift(shifted, reference, 0.5)
    assert found["kendall"] == pytest.approx(1) and found["first_changed"] == 0
    assert {found["logit"][name] for name in ("mean", "median", "p1", "p99")} == {-1.5}
    accepted = found["accepted"]
    assert (accepted["reference"], accepted["shifted"], accepted["other"]) == (3, 1, 2)
    cut = np.log(accepted["same_count"] / (1 - accepted["same_count"]))
    assert -2.5 < cut < -1.0


@given(LOGITS, st.integers(0, 2**32 - 1))
def test_the_threshold_takes_as_many(reference: list[float], seed: int) -> None:
    ours = np.array(reference) + np.random.default_rng(seed).normal(size=len(reference))
    found = acceptance(ours, np.array(reference), 0.5)
    if (same := found["same_count"]) is not None:
        assert int((sigmoid(ours) > same).sum()) == pytest.approx(found["reference"], abs=1e-9)


def test_where_no_threshold_separates_them() -> None:
    assert acceptance(np.zeros(3), np.array([1.0, -1.0, -1.0]), 0.5)["same_count"] is None
    assert acceptance(np.arange(3.0), np.full(3, 2.0), 0.5)["same_count"] is None


def test_one_score_for_all_has_no_correlation() -> None:
    found = score_shift(rows((1.0, 1.0)), rows((1.0, 2.0)), 0.5)
    assert found["kendall"] is None and found["spearman"] is None and found["first_changed"] == 0


def test_large_logits_do_not_overflow() -> None:
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0, 0.5, 1]
