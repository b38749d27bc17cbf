"""Tests of the caveats for constant predictions and for scores at a trivial baseline."""

from __future__ import annotations

from typing import Any

import pytest

from qexp.config import TextTask
from qexp.data.metrics.baselines import caveats

SPLIT = {"evaluation": {"validation": "validation"}, "name": "any", "text": ("a",)}
CLASSES = TextTask(kind="classification", labels=("no", "yes"), metrics=("accuracy", "f1"), **SPLIT)
NUMBERS = TextTask(kind="regression", label_range=(0, 5), metrics=("pearson", "spearman"), **SPLIT)


def test_one_class_for_all_rows_is_told_for_every_metric() -> None:
    found = caveats([1, 1, 1, 1], [1, 1, 0, 1], CLASSES, {"accuracy": 75.0, "f1": 85.7})
    assert found == dict.fromkeys(("accuracy", "f1"), "predicts 'yes' for all 4 rows")


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0]])
def test_rows_of_one_class_do_not_tell_a_constant_model_from_a_good_one(labels: list[int]) -> None:
    found = caveats([1, 1, 1], labels, CLASSES, {"accuracy": 50.0})
    assert found == {"accuracy": "predicts 'yes' for all 3 rows, which all have one label"}


@pytest.mark.parametrize(
    ("score", "told"), [(74.9, True), (75.0, True), (75.1, False), (None, False)], ids=str
)
def test_accuracy_is_held_against_the_most_frequent_class(score: float | None, told: bool) -> None:
    found = caveats([1, 0, 1, 1], [1, 1, 0, 1], CLASSES, {"accuracy": score, "f1": 10.0})
    expected = {"accuracy": "not above 75.00, the share of 'yes', the most frequent class"}
    assert found == (expected if told else {})


@pytest.mark.parametrize("metric", ["matthews", "pearson", "spearman"])
@pytest.mark.parametrize(("score", "told"), [(-3.0, True), (0.0, True), (0.1, False), (None, False)], ids=str)
def test_correlations_are_held_against_zero(metric: str, score: float | None, told: bool) -> None:
    task = CLASSES if metric == "matthews" else NUMBERS
    found = caveats([1, 0, 1], [1, 1, 0], task, {metric: score})
    assert found == ({metric: "not above 0, the level of chance"} if told else {})


@pytest.mark.parametrize(
    ("predictions", "constant"),
    [([2.5, 2.5, 2.5], True), ([2.5, 2.500001, 2.5], True), ([2.5, 2.51, 2.5], False), ([2.5], False)],
    ids=str,
)
def test_numbers_of_a_regression_are_constant_up_to_rounding(
    predictions: list[float], constant: bool
) -> None:
    found = caveats(predictions, [1.0, 2.0, 3.0][: len(predictions)], NUMBERS, {"pearson": None})
    assert found == ({"pearson": "predicts 2.5 for all 3 rows"} if constant else {})


def test_answers_and_translations_are_texts() -> None:
    from qexp.config import QuestionTask

    task = QuestionTask(
        kind="question_answering", name="q", metrics=("f1",), evaluation={"validation": "validation"}
    )
    golds: list[Any] = [["a"], ["b"]]
    assert caveats(["", ""], golds, task, {"f1": 0.0}) == {"f1": "predicts '' for all 2 rows"}
    assert caveats(["a", ""], golds, task, {"f1": 50.0}) == {}
