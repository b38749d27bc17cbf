"""Tests of GLUE metrics against independent formulas and other libraries, degenerate inputs included."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef
from torchmetrics.functional import classification as functional
from torchmetrics.functional import regression

from qexp.config import Metric
from qexp.data.metrics.glue import score

CLASSES: tuple[Metric, ...] = ("accuracy", "f1", "matthews")
NUMBERS: tuple[Metric, ...] = ("pearson", "spearman")
BINARY = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)
THREE = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)
VALUES = st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=2, max_size=30)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs)
    return table[:, 0], table[:, 1]


def counts(predictions: np.ndarray, labels: np.ndarray) -> tuple[int, int, int, int]:
    """True and false positives, true and false negatives."""
    pairs = list(zip(predictions.tolist(), labels.tolist(), strict=True))
    return pairs.count((1, 1)), pairs.count((1, 0)), pairs.count((0, 0)), pairs.count((0, 1))


@settings(max_examples=80, deadline=None)
@given(BINARY)
def test_class_metrics_of_two_classes(pairs: list[tuple[int, int]]) -> None:
    predictions, labels = columns(pairs)
    tp, fp, tn, fn = counts(predictions, labels)
    margins = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    scores = score(CLASSES, predictions, labels)
    assert scores["accuracy"] == pytest.approx(100 * (tp + tn) / len(pairs))
    assert scores["f1"] == pytest.approx(100 * 2 * tp / (2 * tp + fp + fn) if tp else 0)
    assert scores["matthews"] == pytest.approx(100 * (tp * tn - fp * fn) / margins if margins else 0)


@settings(max_examples=40, deadline=None)
@given(THREE)
def test_accuracy_of_three_classes(pairs: list[tuple[int, int]]) -> None:
    predictions, labels = columns(pairs)
    hits = sum(prediction == label for prediction, label in pairs)
    assert score(["accuracy"], predictions, labels)["accuracy"] == pytest.approx(100 * hits / len(pairs))


@settings(max_examples=80, deadline=None)
@given(THREE)
def test_f1_over_the_classes_that_occur(pairs: list[tuple[int, int]]) -> None:
    predictions, labels = columns(pairs)
    each, support = [], []
    for of in sorted({*predictions.tolist(), *labels.tolist()}):
        hits = sum(pair == (of, of) for pair in pairs)
        each.append(100 * 2 * hits / ((predictions == of).sum() + (labels == of).sum()))
        support.append((labels == of).sum())
    scores = score(["accuracy", "f1_macro", "f1_micro", "f1_weighted"], predictions, labels)
    assert scores["f1_macro"] == pytest.approx(sum(each) / len(each))
    assert scores["f1_micro"] == pytest.approx(scores["accuracy"])
    assert scores["f1_weighted"] == pytest.approx(np.average(each, weights=support))


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    x, y = x - x.mean(), y - y.mean()
    below = math.sqrt((x @ x) * (y @ y))
    return 100 * (x @ y) / below if below > 1e-9 else None


def ranks(values: np.ndarray) -> np.ndarray:
    """Mean rank of each value, ties shared."""
    return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])


@settings(max_examples=80, deadline=None)
@given(VALUES, st.sampled_from([np.float32, np.float64, np.int64]))
def test_correlations(pairs: list[tuple[int, int]], kind: type) -> None:
    predictions, labels = columns(pairs)
    scores = score(NUMBERS, predictions.astype(kind), labels.astype(np.float32))
    for name, expected in (
        ("pearson", pearson(predictions, labels)),
        ("spearman", pearson(ranks(predictions), ranks(labels))),
    ):
        assert scores[name] == (None if expected is None else pytest.approx(expected, abs=1e-6))


DRAW = np.random.default_rng(0)
CLASS_INPUTS = {
    "random": (DRAW.integers(0, 2, 300), DRAW.integers(0, 2, 300)),
    "rare": (DRAW.random(300) < 0.02, DRAW.random(300) < 0.05),
    "good": ((noisy := DRAW.integers(0, 2, 300)) ^ (DRAW.random(300) < 0.1), noisy),
    "labels all 0": (DRAW.integers(0, 2, 50), np.zeros(50)),
    "labels all 1": (DRAW.integers(0, 2, 50), np.ones(50)),
    "always 0": (np.zeros(50), DRAW.integers(0, 2, 50)),
    "always 1": (np.ones(50), DRAW.integers(0, 2, 50)),
    "0 and 0": (np.zeros(50), np.zeros(50)),
    "1 and 1": (np.ones(50), np.ones(50)),
    "0 and 1": (np.zeros(50), np.ones(50)),
    "1 and 0": (np.ones(50), np.zeros(50)),
    "one row": (np.ones(1), np.ones(1)),
}


@pytest.mark.parametrize("name", CLASS_INPUTS)
@pytest.mark.filterwarnings("ignore:.*single label was found", "ignore:.*ill-defined")
def test_classes_as_the_official_script_and_as_torchmetrics(name: str) -> None:
    """The official script of GLUE, and ``evaluate``, call scikit-learn without more ado."""
    predictions, labels = (values.astype(np.int64) for values in CLASS_INPUTS[name])
    found = score(CLASSES, predictions, labels)
    assert found == pytest.approx(
        {
            "accuracy": 100 * (predictions == labels).mean(),
            "f1": 100 * f1_score(y_true=labels, y_pred=predictions),
            "matthews": 100 * matthews_corrcoef(labels, predictions),
        }
    )
    predicted, golds = torch.tensor(predictions), torch.tensor(labels)
    # as one of three classes: for two, torchmetrics calls a constant hit 1 where scikit-learn says 0
    expected = {
        "accuracy": functional.binary_accuracy(predicted, golds),
        "f1": functional.binary_f1_score(predicted, golds),
        "matthews": functional.multiclass_matthews_corrcoef(predicted, golds, num_classes=3),
    }
    assert found == pytest.approx(
        {metric: 100 * float(value) for metric, value in expected.items()}, abs=1e-4
    )


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("constant", [None, "predictions", "labels"])
def test_more_classes_as_torchmetrics(classes: int, constant: str | None) -> None:
    predictions, labels = np.random.default_rng(classes).integers(0, classes, [2, 200])
    predictions = np.where(np.arange(200) % 3, predictions, labels)
    predictions = np.ones_like(labels) if constant == "predictions" else predictions
    labels = np.ones_like(labels) if constant == "labels" else labels
    predicted, golds = torch.tensor(predictions), torch.tensor(labels)
    values = {
        "accuracy": functional.multiclass_accuracy(predicted, golds, num_classes=classes, average="micro"),
        "matthews": functional.multiclass_matthews_corrcoef(predicted, golds, num_classes=max(classes, 3)),
    }
    wanted = {metric: 100 * float(value) for metric, value in values.items()}
    assert score(["accuracy", "matthews"], predictions, labels) == pytest.approx(wanted, abs=1e-4)


VALUES_OF_STSB = DRAW.uniform(0, 5, 300).round(1)
NUMBER_INPUTS = {
    "random": DRAW.normal(size=[2, 300]),
    "good": (VALUES_OF_STSB + DRAW.normal(size=300), VALUES_OF_STSB),
    "opposite": (-VALUES_OF_STSB, VALUES_OF_STSB),
    "ties": DRAW.integers(0, 3, [2, 300]).astype(float),
    "two rows": (np.array([1.0, 2.0]), np.array([3.0, 1.0])),
    "one row apart": (np.eye(1, 50)[0], DRAW.normal(size=50)),
    "constant predictions": (np.full(50, 2.5), DRAW.normal(size=50)),
    "constant labels": (DRAW.normal(size=50), np.full(50, 5.0)),
    "both constant": (np.full(50, 2.5), np.full(50, 2.5)),
}


@pytest.mark.parametrize("name", NUMBER_INPUTS)
@pytest.mark.filterwarnings("ignore:An input array is constant")
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning:scipy")  # SciPy 1.15, of such an array
def test_numbers_as_scipy_and_as_torchmetrics(name: str) -> None:
    predictions, labels = NUMBER_INPUTS[name]
    found = score(NUMBERS, predictions, labels)
    for metric, scipys in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        expected = float(scipys(predictions, labels)[0])
        assert found[metric] == (None if math.isnan(expected) else pytest.approx(100 * expected))
    if "constant" in name:  # torchmetrics calls Spearman's coefficient 0 there
        assert found == {"pearson": None, "spearman": None}
        return
    columns = torch.tensor(predictions), torch.tensor(labels)
    assert found == pytest.approx(
        {
            "pearson": 100 * float(regression.pearson_corrcoef(*columns)),
            "spearman": 100 * float(regression.spearman_corrcoef(*columns)),
        },
        abs=1e-3,
    )


@pytest.mark.parametrize(
    ("predictions", "labels", "expected"),
    [
        ([1, 1, 1], [1, 1, 1], {"accuracy": 100.0, "f1": 100.0, "matthews": 0.0}),
        ([0, 0, 0], [0, 0, 0], {"accuracy": 100.0, "f1": 0.0, "matthews": 0.0}),
        ([0, 0, 0, 0], [0, 1, 0, 1], {"accuracy": 50.0, "f1": 0.0, "matthews": 0.0}),
        ([0, 1], [1, 0], {"accuracy": 0.0, "f1": 0.0, "matthews": -100.0}),
        ([1], [1], {"accuracy": 100.0, "f1": 100.0, "matthews": 0.0}),
    ],
)
@pytest.mark.filterwarnings("error")
def test_degenerate_classes(predictions: list[int], labels: list[int], expected: dict[str, float]) -> None:
    assert score(CLASSES, np.array(predictions), np.array(labels)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [
        ([0.5, 0.5, 0.5], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [0.5, 0.5, 0.5]),
        ([1.0], [1.0]),
        ([float("nan"), 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, float("inf")], [1.0, 2.0, 3.0]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_undefined_correlations_are_none(predictions: list[float], labels: list[float]) -> None:
    expected = {"pearson": None, "spearman": None}
    assert score(NUMBERS, np.array(predictions), np.array(labels)) == expected


@pytest.mark.filterwarnings("error")
def test_rounding_errors_are_no_correlation() -> None:
    almost = 0.1 + np.array([0, 1, 2, 3]) * 1e-17 + np.array([0, 2e-17, 2e-17, 4e-17])
    assert score(["pearson"], almost, np.arange(4.0))["pearson"] is None


def test_a_prediction_that_is_not_a_number_has_no_score() -> None:
    predictions = np.array([1, 1, 0, np.nan])
    assert score(CLASSES, predictions, np.array([1, 1, 0, 0])) == dict.fromkeys(CLASSES)


def test_only_the_asked_metrics_come_back_in_their_order() -> None:
    scores = score(["matthews", "accuracy"], np.array([0, 1]), np.array([0, 1]))
    assert list(scores.items()) == [("matthews", 100.0), ("accuracy", 100.0)]


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [(np.zeros(3), np.zeros(2)), (np.zeros((2, 1)), np.zeros((2, 1))), (np.zeros(0), np.zeros(0))],
)
def test_wrong_shapes_are_a_mistake(predictions: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="rows"):
        score(["accuracy"], predictions, labels)


def test_fractions_are_no_class_ids() -> None:
    with pytest.raises(ValueError, match=r"integers, got 0\.5"):
        score(["accuracy"], np.array([0.5, 1.0]), np.array([0, 1]))
