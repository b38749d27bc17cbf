"""Tests of resamples, and of metric differences on them, against theory, SciPy and sacreBLEU."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest
from scipy.stats import bootstrap

from qexp.data.metrics import bootstrap as resampling
from qexp.data.metrics.bootstrap import RowGroups, paired_bootstrap, resampled_medians
from qexp.data.metrics.vectorized import MEASURES

CLASSES, NUMBERS = (
    {name: MEASURES[kind][name] for name in names}
    for kind, names in (
        ("classification", ("accuracy", "f1", "matthews")),
        ("regression", ("pearson", "spearman")),
    )
)


def test_cells_stand_for_all_rows() -> None:
    cells = RowGroups.of(np.array([[0.0, 0.5], [1.0, 0.5], [0.0, 0.5], [0.0, 0.0]]))
    found = dict(zip(map(tuple, cells.numbers.tolist()), cells.rows.tolist(), strict=True))
    assert found == {(0.0, 0.5): 2, (1.0, 0.5): 1, (0.0, 0.0): 1}


def test_draws_are_those_of_rows_with_replacement() -> None:
    """Mean and variance of a multinomial: n p and n p (1 - p)."""
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    (counts,) = RowGroups.of(labels[:, None]).draws(20_000, seed=3)
    assert counts.mean(axis=0) == pytest.approx([50, 30, 20], abs=0.2)
    assert counts.var(axis=0) == pytest.approx([25, 21, 16], rel=0.05)
    assert np.cov(counts.T)[0, 1] == pytest.approx(-100 * 0.5 * 0.3, rel=0.08)


def test_parts_and_seed_decide_nothing_and_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = RowGroups.of(np.arange(30.0)[:, None])
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
    first_scores, second_scores = paired_bootstrap(
        CLASSES, (first, second), labels, resamples=20_000, seed=0
    )["accuracy"]
    expected = 100 * math.sqrt((80 / 400 - (20 / 400) ** 2) / 400)
    assert (second_scores - first_scores).std() == pytest.approx(expected, rel=0.03)
    assert (second_scores - first_scores).mean() == pytest.approx(-5.0, abs=0.1)


def test_intervals_are_those_of_scipy() -> None:
    draw = np.random.default_rng(0)
    labels = draw.normal(size=120)
    first, second = labels + draw.normal(size=120), labels + draw.normal(size=120) * 0.8
    first_scores, second_scores = paired_bootstrap(NUMBERS, (first, second), labels, resamples=4000, seed=0)[
        "pearson"
    ]

    def difference(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
        return 100 * float(np.corrcoef(b, c)[0, 1] - np.corrcoef(a, c)[0, 1])

    expected = bootstrap(
        (first, second, labels), difference, paired=True, vectorized=False, n_resamples=4000,
        method="percentile", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert np.percentile(second_scores - first_scores, (2.5, 97.5)) == pytest.approx(
        [expected.low, expected.high], abs=0.9
    )


def test_parts_of_the_draws_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    first, second, labels = draw.integers(0, 2, [3, 40])
    whole = paired_bootstrap(CLASSES, (first, second), labels, resamples=60, seed=1)
    monkeypatch.setattr(resampling, "NUMBERS_AT_ONCE", 50)
    parts = paired_bootstrap(CLASSES, (first, second), labels, resamples=60, seed=1)
    assert list(whole) == list(parts) == list(CLASSES)
    for name, of_both in whole.items():
        assert np.array_equal(of_both, parts[name])


def test_bleu_of_resamples_spreads_as_in_sacrebleus_own_paired_bootstrap() -> None:
    draw, words = np.random.default_rng(0), np.array(list("abcdefghij"))
    golds = [draw.choice(words, 9) for _ in range(150)]
    noisy = [[np.where(draw.random(9) < noise, "x", gold) for gold in golds] for noise in (0.2, 0.3)]
    *texts, golds = ([" ".join(row) for row in rows] for rows in (*noisy, golds))
    *sides, labels = np.array([*texts, golds], object)
    scores = paired_bootstrap(MEASURES["translation"], sides, labels, resamples=2000, seed=0)["bleu"]
    test = PairedTest(
        [("a", texts[0]), ("b", texts[1])], {"BLEU": BLEU(references=[golds])}, None, test_type="bs",
        n_samples=2000,
    )  # fmt: skip
    for values, expected in zip(scores, test()[1]["BLEU"], strict=True):
        low, high = np.percentile(values, (2.5, 97.5))
        assert values.mean() == pytest.approx(expected.mean, abs=0.15)
        assert (high - low) / 2 == pytest.approx(expected.ci, rel=0.08)


def test_the_same_predictions_never_differ() -> None:
    draw = np.random.default_rng(0)
    values, labels = draw.normal(size=50), draw.normal(size=50)
    for first, second in paired_bootstrap(NUMBERS, (values, values), labels, resamples=200, seed=0).values():
        assert np.array_equal(first, second)


def test_resamples_without_a_correlation_are_undefined() -> None:
    values, labels = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 2.0])
    found = paired_bootstrap(NUMBERS, (values, np.ones(3)), labels, resamples=1000, seed=0)
    for varied, constant in found.values():
        assert np.isnan(constant).all()
        # without the third row, (2/3)^3, or with nothing else, (1/3)^3
        assert np.isnan(varied).mean() == pytest.approx(9 / 27, abs=0.06)


def test_one_seed_has_nothing_to_draw() -> None:
    numbers = np.random.default_rng(0).normal(size=(1, 50))
    assert np.array_equal(resampled_medians(numbers, 0), numbers[0])


def test_medians_over_seeds_spread_as_scipys_bootstrap_of_the_median() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    medians = resampled_medians(np.repeat(values[:, None], 20_000, axis=1), 3)
    expected = bootstrap((values,), np.median, n_resamples=20_000, method="percentile", rng=0)
    shares = [
        [(each == value).mean() for value in values] for each in (medians, expected.bootstrap_distribution)
    ]
    assert shares[0] == pytest.approx(shares[1], abs=0.015)


def test_rows_and_seeds_add_their_variances() -> None:
    """Of two seeds the median is a mean: its variance is that of the rows plus half the seeds' own."""
    rows = np.random.default_rng(1).normal(scale=0.5, size=40_000)
    medians = resampled_medians(np.stack([rows - 1, rows + 1]), 2)
    assert medians.var() == pytest.approx(0.25 + 1 / 2, rel=0.03)


def test_a_seed_that_is_undefined_makes_its_draws_undefined() -> None:
    medians = resampled_medians(np.stack([np.full(4000, np.nan), np.ones(4000)]), 0)
    assert np.isnan(medians).mean() == pytest.approx(0.75, abs=0.03)
