"""Metrics of resamples against those of the rows themselves, and draws against what theory says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from qexp.config import Metric
from qexp.data import resampling
from qexp.data.metrics import score
from qexp.data.resampling import Cells, paired_bootstrap, score_draws

CLASSES: tuple[Metric, ...] = ("accuracy", "f1", "matthews")
NUMBERS: tuple[Metric, ...] = ("pearson", "spearman")


def rows_of(values: st.SearchStrategy[float]) -> st.SearchStrategy[list[tuple[float, float, float]]]:
    return st.lists(st.tuples(values, values, values), min_size=1, max_size=25)


def columns(rows: Sequence[tuple[float, float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second, labels = np.array(rows).T
    return first, second, labels


def hold_together(metrics: Sequence[Metric], rows: Sequence[tuple[float, float, float]]) -> None:
    """Every resample, written out row by row, scores as :func:`score` says."""
    cells = Cells.of(*columns(rows))
    (counts,) = cells.draws(8, seed=len(rows))
    assert (counts.sum(axis=1) == len(rows)).all()
    for predictions in (cells.first, cells.second):
        found = {metric: score_draws(metric, predictions, cells.labels, counts) for metric in metrics}
        for number, drawn in enumerate(counts):
            index = np.repeat(np.arange(len(drawn)), drawn.astype(int))
            expected = score(metrics, predictions[index], cells.labels[index])
            for metric, value in expected.items():
                wanted = math.nan if value is None else value
                assert found[metric][number] == pytest.approx(wanted, abs=1e-6, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(rows_of(st.integers(0, 1)))
def test_two_classes(rows: list[tuple[float, float, float]]) -> None:
    hold_together(CLASSES, rows)


@settings(max_examples=15, deadline=None)
@given(rows_of(st.integers(0, 3)))
def test_four_classes(rows: list[tuple[float, float, float]]) -> None:
    hold_together(("accuracy", "matthews"), rows)


@settings(max_examples=25, deadline=None)
@given(rows_of(st.integers(-40, 40).map(lambda value: value / 8)))
def test_numbers(rows: list[tuple[float, float, float]]) -> None:
    hold_together(NUMBERS, rows)


@settings(max_examples=15, deadline=None)
@given(rows_of(st.integers(0, 2).map(float)))
def test_numbers_with_many_ties(rows: list[tuple[float, float, float]]) -> None:
    hold_together(NUMBERS, rows)


def test_numbers_that_lie_close_together_keep_their_digits() -> None:
    near = 1e6 + np.arange(12) / 64
    hold_together(NUMBERS, list(zip(near, near[::-1] ** 2, near, strict=True)))


def test_rounding_errors_are_no_correlation() -> None:
    cells = Cells.of(0.1 + np.arange(4) * 1.4e-17, np.arange(4.0), np.arange(4.0))
    (counts,) = cells.draws(50, seed=0)
    assert np.isnan(score_draws("pearson", cells.first, cells.labels, counts)).all()
    assert np.isfinite(score_draws("pearson", cells.second, cells.labels, counts)).sum() >= 45


def test_cells_stand_for_all_rows() -> None:
    cells = Cells.of(np.array([0, 1, 0, 0]), np.array([1, 1, 1, 0]), np.array([0, 1, 0, 0]))
    found = dict(zip(zip(cells.first, cells.second, cells.labels, strict=True), cells.rows, strict=True))
    assert found == {(0.0, 1.0, 0.0): 2, (1.0, 1.0, 1.0): 1, (0.0, 0.0, 0.0): 1}


def test_draws_are_those_of_rows_with_replacement() -> None:
    """Mean and variance of a multinomial: n p and n p (1 - p)."""
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    (counts,) = Cells.of(labels, labels, labels).draws(20_000, seed=3)
    assert counts.mean(axis=0) == pytest.approx([50, 30, 20], abs=0.2)
    assert counts.var(axis=0) == pytest.approx([25, 21, 16], rel=0.05)
    assert np.cov(counts.T)[0, 1] == pytest.approx(-100 * 0.5 * 0.3, rel=0.08)


def test_parts_and_seed_decide_nothing_and_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(30.0)
    cells = Cells.of(values, values, values)
    (whole,) = cells.draws(40, seed=1)
    monkeypatch.setattr(resampling, "NUMBERS_AT_ONCE", 7 * 30)
    parts = list(cells.draws(40, seed=1))
    assert [len(part) for part in parts] == [7, 7, 7, 7, 7, 5]
    assert np.array_equal(np.concatenate(parts), whole)
    assert not np.array_equal(np.concatenate(list(cells.draws(40, seed=2))), whole)


def test_the_spread_is_that_of_the_difference_of_paired_accuracies() -> None:
    """With b and c rows that one alone has right: n Var = (b + c) / n - ((b - c) / n)^2."""
    labels = np.zeros(400, int)
    first, second = np.array([1] * 30 + [0] * 370), np.array([0] * 30 + [1] * 50 + [0] * 320)
    ours, theirs = paired_bootstrap(["accuracy"], first, second, labels, resamples=20_000, seed=0)["accuracy"]
    expected = 100 * math.sqrt((80 / 400 - (20 / 400) ** 2) / 400)
    assert (theirs - ours).std() == pytest.approx(expected, rel=0.03)
    assert (theirs - ours).mean() == pytest.approx(-5.0, abs=0.1)


def test_intervals_are_those_of_scipy() -> None:
    draw = np.random.default_rng(0)
    labels = draw.normal(size=120)
    first, second = labels + draw.normal(size=120), labels + draw.normal(size=120) * 0.8
    ours, theirs = paired_bootstrap(["pearson"], first, second, labels, resamples=4000, seed=0)["pearson"]

    def difference(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
        return 100 * float(np.corrcoef(b, c)[0, 1] - np.corrcoef(a, c)[0, 1])

    known = bootstrap(
        (first, second, labels), difference, paired=True, vectorized=False, n_resamples=4000,
        method="percentile", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert np.percentile(theirs - ours, (2.5, 97.5)) == pytest.approx([known.low, known.high], abs=0.9)


def test_the_same_predictions_never_differ() -> None:
    draw = np.random.default_rng(0)
    values, labels = draw.normal(size=50), draw.normal(size=50)
    for ours, theirs in paired_bootstrap(NUMBERS, values, values, labels, resamples=200, seed=0).values():
        assert np.array_equal(ours, theirs)


def test_resamples_without_a_correlation_are_undefined() -> None:
    values, labels = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 2.0])
    found = paired_bootstrap(NUMBERS, values, np.ones(3), labels, resamples=1000, seed=0)
    for varied, constant in found.values():
        assert np.isnan(constant).all()
        # without the third row, (2/3)^3, or with nothing else, (1/3)^3
        assert np.isnan(varied).mean() == pytest.approx(9 / 27, abs=0.06)
