"""Tests of the gate on synthetic predictions: noise of the size of the floor passes, all else fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.config import Task
from qexp.data.metrics.cosines import cosines
from qexp.tasks.base import Predictions
from qexp.tasks.classification import margins
from qexp.tasks.comparison import GateComparison, SplitPredictions
from qexp.tasks.gate import judge
from tests.conftest import experiment

MRPC, STSB, SQUAD, MULTI30K = (
    experiment(f"task={name}", *more).task
    for name, *more in (("mrpc",), ("stsb",), ("squad",), ("translation", "model=transformer_tiny"))
)
EMBEDDING = experiment("task=stsb_embedding").task
Array = np.ndarray[Any, Any]
ROWS, NOISE = 1000, 0.01


def classes(logits: Array, labels: Array) -> Predictions:
    return Predictions(
        np.arange(len(logits)), logits.argmax(1), labels, logits.astype(np.float32), margins=margins(logits)
    )


def numbers(values: Array, labels: Array) -> Predictions:
    return Predictions(np.arange(len(values)), values, labels, values[:, None].astype(np.float32))


def noisy(logits: Array, seed: int, size: float = NOISE) -> Array:
    """As two arithmetics differ: most rows by little, some by much."""
    draw = np.random.default_rng(seed)
    return logits + size * draw.standard_t(3, logits.shape) * draw.choice([0.1, 1.0], (len(logits), 1))


@pytest.fixture
def logits() -> Array:
    return np.random.default_rng(1).normal(size=(ROWS, 2))


@pytest.fixture
def labels(logits: Array) -> Array:
    flipped = np.random.default_rng(2).random(ROWS) < 0.2
    return np.where(flipped, 1 - logits.argmax(1), logits.argmax(1))


def verdict(
    engine: Array, logits: Array, labels: Array, floor: Array | None = None, *, sample: int | None = None
) -> dict[str, Any]:
    floor = noisy(logits, 3) if floor is None else floor
    of_floor = classes(floor[:sample], labels[:sample])
    side = SplitPredictions(classes(engine, labels), classes(logits, labels), of_floor)
    return judge(GateComparison(MRPC, {"validation": side}))


MANY = 8 * ROWS
"""Rows of a large evaluation split, of which the floor has an eighth."""


@pytest.fixture
def many() -> tuple[Array, Array]:
    """Logits and labels of a calibrated model, as on rows that it was not trained on."""
    draw = np.random.default_rng(21)
    logits = draw.normal(size=(MANY, 2))
    return logits, (draw.random(MANY) < 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).astype(np.int64)


@pytest.mark.parametrize("seed", range(10, 40))
def test_noise_is_never_a_fault_where_the_floor_is_a_sample(seed: int, many: tuple[Array, Array]) -> None:
    result = verdict(noisy(many[0], seed, 1.5 * NOISE), *many, sample=ROWS)
    assert result["passed"], result["reasons"]
    assert (result["rows"], result["floor"]["rows"]) == (MANY, ROWS)
    assert result["agreement"] > 99


@pytest.mark.parametrize("seed", range(10, 40))
def test_noise_of_the_floors_size_is_never_a_fault(seed: int, logits: Array, labels: Array) -> None:
    result = verdict(noisy(logits, seed, 1.5 * NOISE), logits, labels)
    assert result["passed"], result["reasons"]


def test_rows_that_are_level_make_no_failure_of_noise(labels: Array) -> None:
    """After a few steps of training: all logits alike, so that rounding decides one row in ten."""
    level = np.random.default_rng(4).normal(scale=0.02, size=(ROWS, 2))
    result = verdict(noisy(level, 5), level, labels, noisy(level, 6))
    assert result["agreement"] < 99
    assert result["verdict"] == "within noise"
    assert result["floor"]["agreement"] < 99


def test_identical_predictions_pass(logits: Array, labels: Array) -> None:
    result = verdict(logits, logits, labels, logits)
    assert result["verdict"] == "passed"
    assert result["logit_differences"] == {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}
    assert result["distribution"]["below"] == result["floor"]["distribution"]["below"] == ROWS


FAULTS = {
    "all differences three times as large": lambda logits: noisy(logits, 7, 6 * NOISE),
    "a constant": lambda logits: noisy(logits, 7) + np.array([0.01, 0.0]),
    "a factor": lambda logits: noisy(1.01 * logits, 7),
    "one row in fifty": lambda logits: np.where(numbers_of(logits) % 50 == 0, -logits, noisy(logits, 7)),
    "classes swapped": lambda logits: logits[:, ::-1],
    # Row 17 of 1000, and 7017 of 8000, which a floor of 1000 lacks.
    "no number": lambda logits: np.where(numbers_of(logits) == len(logits) - 983, np.nan, logits),
}


def numbers_of(logits: Array) -> Array:
    """Numbers of the rows, [rows, 1]."""
    return np.arange(len(logits))[:, None]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_noise_does_not_do_fails(fault: str, logits: Array, labels: Array) -> None:
    result = verdict(FAULTS[fault](logits), logits, labels)
    assert result["verdict"] == "failed"
    assert not result["passed"]
    assert result["reasons"]


FAULTS_OF_MANY = FAULTS | {
    "one row in fifty of those that the floor lacks": lambda logits: np.where(
        (numbers_of(logits) % 50 == 0) & (numbers_of(logits) > ROWS), -logits, noisy(logits, 7)
    ),
    "five rows that the floor lacks": lambda logits: np.where(
        np.isin(numbers_of(logits), 1 + np.argsort(-np.abs(np.diff(logits[1:])[:, 0]))[:5]),
        -logits, noisy(logits, 7),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS_OF_MANY)
def test_faults_are_seen_where_the_floor_is_a_sample(fault: str, many: tuple[Array, Array]) -> None:
    result = verdict(FAULTS_OF_MANY[fault](many[0]), *many, sample=ROWS)
    assert result["verdict"] == "failed"
    assert result["reasons"]


def test_one_sure_row_that_flips_is_a_fault(logits: Array, labels: Array) -> None:
    """It costs 0.1 points and 0.1 % of agreement, and no arithmetic explains it."""
    engine = noisy(logits, 8)
    sure = int(margins(logits).argmax())  # type: ignore[union-attr]
    engine[sure] = engine[sure, ::-1]
    result = verdict(engine, logits, labels)
    assert result["agreement"] > 99.5
    assert result["verdict"] == "failed"
    assert "apart" in result["reasons"][-1]


def test_a_model_that_answers_all_rows_alike_has_one_row_of_noise(labels: Array) -> None:
    """A tie that rounds the other way is then the same offset in every row."""
    constant = np.tile([0.2, -0.1], (ROWS, 1))
    result = verdict(constant + np.array([0.003, 0.0]), constant, labels, constant)
    assert result["passed"], result["reasons"]


@pytest.mark.parametrize(("step", "passed"), [(0.03, True), (0.001, False)])
def test_a_floor_that_saw_no_step_of_a_grid_is_told_what_one_does(
    step: float, passed: bool, logits: Array, labels: Array
) -> None:
    """A value that all rows share, such as that of the first token, lies at a tie: all rows move together."""
    engine = logits + np.where(logits[:, :1] > 0, 0.02, 0.0)
    steps = classes(logits[:64] + step, labels[:64])
    side = SplitPredictions(classes(engine, labels), classes(logits, labels), classes(logits, labels), steps)
    assert judge(GateComparison(MRPC, {"": side}))["passed"] is passed


def test_one_level_row_that_flips_is_none(logits: Array, labels: Array) -> None:
    logits = logits.copy()
    logits[5] = [0.3, 0.3 + 1e-6]
    engine = logits.copy()
    engine[5] = [0.3 + 1e-6, 0.3]
    assert verdict(engine[:71], logits[:71], labels[:71], logits[:71])["passed"]


def test_flips_that_all_cost_a_point_are_no_chance(logits: Array, labels: Array) -> None:
    """As many rows flip as in the floor, but each of them from right to wrong."""
    level = np.random.default_rng(9).normal(scale=0.02, size=(ROWS, 2))
    right = level.argmax(1)
    engine = noisy(level, 10)
    side = (engine.argmax(1) != right) & (labels == engine.argmax(1))
    engine[side] = level[side]
    closest = (labels == right) & (margins(level) < 0.01) & (engine.argmax(1) == right)  # type: ignore[operator]
    engine[closest] = level[closest, ::-1]
    result = verdict(engine, level, labels, noisy(level, 11))
    assert result["verdict"] == "failed"


@settings(max_examples=15)
@given(offset=st.floats(0.02, 1.0), seed=st.integers(0, 50))
def test_an_offset_of_a_regression_is_seen(offset: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    values, labels = draw.uniform(0, 5, 500), draw.uniform(0, 5, 500)
    torch, floor, same, off = (
        numbers(values + shift + noise * draw.standard_normal(500), labels)
        for shift, noise in ((0, 0), (0, 0.02), (0, 0.02), (offset, 0.02))
    )
    assert judge(GateComparison(STSB, {"validation": SplitPredictions(same, torch, floor)}))["passed"]
    assert not judge(GateComparison(STSB, {"validation": SplitPredictions(off, torch, floor)}))["passed"]


def texts(flipped: Array, labels: Array, seed: int, margins: Array | None = None) -> Predictions:
    words = np.array([f"answer {index}" for index in range(len(flipped))], object)
    words[flipped] = "another"
    scores = noisy(np.random.default_rng(0).normal(size=(len(flipped), 1)), seed)
    return Predictions(np.arange(len(flipped)), words, labels, scores.astype(np.float32), margins=margins)


@pytest.mark.parametrize("task", [SQUAD, MULTI30K], ids=["spans", "translations"])
@pytest.mark.parametrize(("engine", "passed"), [(0.06, True), (0.2, False)])
def test_texts_may_differ_as_often_as_in_the_floor(task: Task, engine: float, passed: bool) -> None:
    """One text in sixteen differs between two arithmetics of SQuAD's W8A8."""
    draw, rows = np.random.default_rng(12), 600
    golds = np.empty(rows, object)
    golds[:] = [[f"answer {index}"] if task is SQUAD else f"answer {index}" for index in range(rows)]
    sides = [
        texts(draw.random(rows) < share, golds, 13 + seed) for seed, share in enumerate((engine, 0.0, 0.06))
    ]
    result = judge(GateComparison(task, {"validation": SplitPredictions(*sides)}))
    assert result["passed"] is passed, result["reasons"]
    assert result["verdict"] != "passed"


def test_a_sure_answer_that_becomes_another_is_a_fault() -> None:
    rows = 300
    golds = np.empty(rows, object)
    golds[:] = [[f"answer {index}"] for index in range(rows)]
    none, one = np.zeros(rows, bool), np.arange(rows) == 3
    torch = texts(none, golds, 20, margins=np.full(rows, 9.0))
    floor = texts(none, golds, 21)
    assert judge(GateComparison(SQUAD, {"": SplitPredictions(texts(none, golds, 22), torch, floor)}))[
        "passed"
    ]
    result = judge(GateComparison(SQUAD, {"": SplitPredictions(texts(one, golds, 22), torch, floor)}))
    assert "apart" in result["reasons"][-1]


def test_a_metric_that_is_undefined_on_one_side_only_fails() -> None:
    labels = np.linspace(0, 5, 100)
    torch = numbers(labels, labels)
    flat = numbers(np.full(100, 2.0), labels)
    result = judge(GateComparison(STSB, {"": SplitPredictions(flat, torch, torch)}))
    assert result["metric_difference"] is None
    assert result["verdict"] == "failed"
    broken = replace(torch, broken=1)
    assert judge(GateComparison(STSB, {"": SplitPredictions(broken, torch, torch)}))["reasons"] == [
        "logits that are not finite"
    ]


# Embeddings


def vectors(pairs: Array, labels: Array) -> Predictions:
    """Predictions of pairs of vectors, [rows, 2, width]."""
    pairs = (pairs / np.linalg.norm(pairs, axis=2, keepdims=True)).astype(np.float32)
    flat = pairs.reshape(len(pairs), -1)
    return Predictions(np.arange(len(pairs)), cosines(pairs[:, 0], pairs[:, 1]), labels, flat)


@pytest.mark.parametrize(
    ("size", "offset", "passed"), [(1.0, 0.0, True), (20.0, 0.0, False), (1.0, 0.05, False)]
)
def test_embeddings_are_held_against_torch_by_cosine_and_rank(
    size: float, offset: float, passed: bool
) -> None:
    pairs = np.random.default_rng(1).normal(size=(ROWS, 2, 16))
    pairs[:, 1] += np.linspace(0, 3, ROWS)[:, None] * pairs[:, 0]
    labels = np.linspace(0, 5, ROWS)

    def drawn(seed: int, size: float) -> Array:
        return noisy(pairs.reshape(ROWS, -1), seed, size * NOISE).reshape(pairs.shape)

    engine = drawn(4, size)
    engine[..., 3] += offset
    side = SplitPredictions(*(vectors(each, labels) for each in (engine, pairs, drawn(3, 1.0))))
    found = judge(GateComparison(EMBEDDING, {"validation": side}))
    assert found["passed"] is passed
    ours, torch = (each.logits.reshape(ROWS * 2, -1) for each in (side.engine, side.torch))
    assert found["cosines"]["min"] == pytest.approx(cosines(ours, torch).min(), abs=1e-6)
    assert found["floor"]["cosines"]["min"] < found["floor"]["cosines"]["p50"] <= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_error_of_a_text_of_many_rows_counts_once(seed: int) -> None:
    """As a document that is relevant to many queries: its vector has the same error in all of them."""
    draw = np.random.default_rng(seed)
    texts, of_row = draw.normal(size=(40, 64)), np.sort(draw.integers(40, size=ROWS))
    others = draw.normal(size=(ROWS, 64)) + np.linspace(0, 3, ROWS)[:, None] * texts[of_row]
    labels = np.linspace(0, 5, ROWS)

    def drawn(size: float) -> Predictions:
        found = [each + size * NOISE * draw.normal(size=each.shape) for each in (others, texts)]
        return vectors(np.stack([found[0], found[1][of_row]], axis=1), labels)

    torch = vectors(np.stack([others, texts[of_row]], axis=1), labels)
    found = judge(GateComparison(EMBEDDING, {"validation": SplitPredictions(drawn(1.0), torch, drawn(1.0))}))
    assert not [reason for reason in found["reasons"] if "standard errors" in reason]


def test_only_embeddings_have_cosines(logits: Array, labels: Array) -> None:
    assert "cosines" not in verdict(noisy(logits, 4), logits, labels)
