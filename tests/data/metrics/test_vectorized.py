"""Tests of vectorized metrics against the plain metrics of rows repeated as often as they are counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from qexp.config import Metric
from qexp.data.metrics.bleu import bleu
from qexp.data.metrics.bootstrap import RowGroups
from qexp.data.metrics.glue import score
from qexp.data.metrics.label_sets import score_label_sets
from qexp.data.metrics.squad import score_v1, score_v2
from qexp.data.metrics.vectorized import MEASURES, RIGHT, measures_for, observed

Scores = dict[str, float | None]
Pairs = Sequence[tuple[Any, Any]]
CLASSES: tuple[Metric, ...] = ("accuracy", "f1", "matthews")
AVERAGED: tuple[Metric, ...] = ("f1_macro", "f1_micro", "f1_weighted")
NUMBERS: tuple[Metric, ...] = ("pearson", "spearman")


def array(values: Sequence[Any]) -> np.ndarray:
    """Texts and tuples of texts as objects."""
    first = values[0]
    return np.fromiter(values, object, len(values)) if isinstance(first, str | tuple) else np.array(values)


def hold_together(kind: str, rows: Pairs, expected: Callable[[Pairs], Scores]) -> None:
    """The rows as they are, and each of some resamples."""
    predictions, labels = (array(column) for column in zip(*rows, strict=True))
    (counts,) = RowGroups.of(np.arange(len(rows))[:, None]).draws(8, seed=len(rows))
    drawn = [np.repeat(np.arange(len(rows)), of) for of in counts.astype(int)]
    wanted = [expected([rows[row] for row in of]) for of in drawn]
    for name, known in expected(rows).items():
        measure = MEASURES[kind][name]
        assert observed(measure, predictions, labels) == (
            None if known is None else pytest.approx(known, abs=1e-6)
        )
        numbers = measure.statistics(predictions, labels)
        assert numbers.dtype == np.float64 and len(numbers) == len(rows)
        values = np.array([of[name] for of in wanted], np.float64)
        assert measure.score(numbers, counts) == pytest.approx(values, abs=1e-6, nan_ok=True)


def of_labels(*metrics: Metric) -> Callable[[Pairs], Scores]:
    return lambda rows: score(metrics, *map(np.array, zip(*rows, strict=True)))


def pairs(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[Any, Any]]]:
    return st.lists(st.tuples(values, values), min_size=1, max_size=25)


@settings(max_examples=25, deadline=None)
@given(pairs(st.integers(0, 1)))
def test_two_classes(rows: Pairs) -> None:
    hold_together("classification", rows, of_labels(*CLASSES))


@settings(max_examples=15, deadline=None)
@given(pairs(st.integers(0, 3)))
def test_four_classes(rows: Pairs) -> None:
    hold_together("classification", rows, of_labels("accuracy", "matthews", *AVERAGED))


@settings(max_examples=25, deadline=None)
@given(pairs(st.integers(-40, 40).map(lambda value: value / 8)))
def test_numbers(rows: Pairs) -> None:
    hold_together("regression", rows, of_labels(*NUMBERS))


@settings(max_examples=15, deadline=None)
@given(pairs(st.integers(0, 2).map(float)))
def test_numbers_with_many_ties(rows: Pairs) -> None:
    hold_together("regression", rows, of_labels(*NUMBERS))


def test_numbers_that_lie_close_together_keep_their_digits() -> None:
    near = 1e6 + np.arange(12) / 64
    hold_together("regression", list(zip(near, near[::-1] ** 2, strict=True)), of_labels(*NUMBERS))


def test_rounding_errors_are_no_correlation() -> None:
    pearson, line = MEASURES["regression"]["pearson"], np.arange(4.0)
    (counts,) = RowGroups.of(line[:, None]).draws(50, seed=0)
    nearly_constant = 0.1 + line * 1.4e-17
    assert observed(pearson, nearly_constant, line) is None
    assert np.isnan(pearson.score(pearson.statistics(nearly_constant, line), counts)).all()
    assert np.isfinite(pearson.score(pearson.statistics(line, line), counts)).sum() >= 45


TEXTS = st.lists(st.sampled_from(["the", "a", "Red", "red.", "blue", "cat's"]), max_size=4).map(" ".join)
GOLDS = st.lists(TEXTS, min_size=1, max_size=3).map(tuple)


def version_1(rows: Pairs) -> Scores:
    return dict(score_v1(*zip(*rows, strict=True)))


def version_2(rows: Pairs) -> Scores:
    found = score_v2(*zip(*rows, strict=True))
    return {"exact_match": found["exact"], "f1": found["f1"]}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TEXTS, GOLDS), min_size=1, max_size=12))
def test_answers(rows: Pairs) -> None:
    hold_together("question_answering", rows, version_1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TEXTS, GOLDS | st.just(())), min_size=1, max_size=12), TEXTS)
def test_answers_where_some_questions_have_none(rows: Pairs, said: str) -> None:
    hold_together("question_answering", [*rows, (said, ())], version_2)


WORD = st.sampled_from(["the", "a", "cat", "sat", "on", "mat", ",", ".", "It's", "3.5"])
WORDS = st.lists(WORD, max_size=9).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8))
def test_bleu_is_sacrebleus_of_the_corpus(rows: Pairs) -> None:
    def expected(rows: Pairs) -> Scores:
        translations, golds = zip(*rows, strict=True)
        lower = BLEU(lowercase=True, smooth_method="none")
        made = {"bleu": BLEU(), "tokenized_bleu_lc": lower}
        return {name: each.corpus_score(translations, [golds]).score for name, each in made.items()}

    hold_together("translation", rows, expected)


def test_bleu_counts_the_tokens_that_the_task_names() -> None:
    said, right = np.array(["猫在垫子上坐着"], object), np.array(["猫在垫子上睡着"], object)
    found = [observed(measures_for("translation", None, name)["bleu"], said, right) for name in ("13a", "zh")]
    assert found == [pytest.approx(bleu([*said], [*right], tokenize=name)) for name in ("13a", "zh")]
    assert found[0] == 0 and found[1] == pytest.approx(64.35, abs=0.01)


SETS = st.sets(st.integers(0, 3)).map(lambda ids: tuple(sorted(ids)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(SETS, SETS), min_size=1, max_size=15))
def test_sets_of_labels(rows: Pairs) -> None:
    metrics = tuple(MEASURES["multi_label"])
    hold_together(
        "multi_label", rows, lambda rows: score_label_sets(metrics, *map(array, zip(*rows, strict=True)))
    )


def test_right_rows() -> None:
    golds = array([("a red cat",), ("blue", "red"), ()])
    for kind, predictions, labels in (
        ("classification", np.array([1, 2, 0]), np.array([1, 2, 2])),
        ("question_answering", array(["Red cat.", "RED", "x"]), golds),
    ):
        assert RIGHT[kind].statistics(predictions, labels)[:, 0].tolist() == [1, 1, 0]
    assert set(RIGHT) == {"classification", "question_answering", "multi_label", "token_classification"}
