"""Metrics of sets of labels against scikit-learn on matrices, and thresholds against a search of all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from qexp.data.metrics.label_sets import best_thresholds, matrix, score_label_sets, tuples

METRICS = ("f1_micro", "f1_macro", "f1_weighted", "subset_accuracy")
ROWS = st.lists(st.tuples(*[st.sets(st.integers(0, 3))] * 2), min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_scores_are_scikit_learns_over_the_labels_that_occur(rows: list[tuple[set[int], set[int]]]) -> None:
    predicted, gold = (matrix(np.array([sorted(each[side]) for each in rows], object), 4) for side in (0, 1))
    found = score_label_sets(METRICS, tuples(predicted), tuples(gold))
    occurs = (predicted | gold).any(axis=0)
    assert found["subset_accuracy"] == pytest.approx(100 * np.mean([one == other for one, other in rows]))
    if not occurs.any():
        assert found["f1_micro"] == found["f1_macro"] == 0
        return
    each = f1_score(gold, predicted, average=None, zero_division=0)[occurs]
    assert found["f1_macro"] == pytest.approx(100 * each.mean())
    weights = gold.sum(axis=0)[occurs]
    weighted = np.average(each, weights=weights) if weights.any() else 0
    assert found["f1_weighted"] == pytest.approx(100 * weighted)
    micro = f1_score(gold, predicted, average="micro", zero_division=0)
    assert found["f1_micro"] == pytest.approx(100 * micro)
    if occurs.all():
        assert found["f1_macro"] == pytest.approx(
            100 * f1_score(gold, predicted, average="macro", zero_division=0)
        )
        assert found["subset_accuracy"] == pytest.approx(100 * accuracy_score(gold, predicted))


def f1_at(threshold: float, probabilities: np.ndarray, gold: np.ndarray) -> float:
    return float(f1_score(gold, probabilities > threshold, zero_division=0))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=20))
def test_no_other_threshold_has_a_better_f1(rows: list[tuple[int, bool]]) -> None:
    probabilities, gold = np.array([row[0] / 10 for row in rows]), np.array([row[1] for row in rows])
    (found,) = best_thresholds(probabilities[:, None], gold[:, None])
    assert 0 < found < 1
    if not gold.any():
        assert found == 0.5
        return
    others = [f1_at(each, probabilities, gold) for each in np.arange(0.05, 1, 0.1)]
    assert f1_at(found, probabilities, gold) == pytest.approx(max(others))


def test_of_equal_thresholds_the_one_nearest_to_a_half() -> None:
    gold = np.array([[True], [True], [False]])
    assert best_thresholds(np.array([[0.9], [0.8], [0.1]]), gold) == [pytest.approx(0.45)]
