"""Labels in the forms that rows have, and what rows tell of a task that leaves its labels open."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from qexp.config import TextTask
from qexp.data.sources import labels, text_rows
from qexp.errors import DataError

OPEN = TextTask(
    name="own", kind="classification", text=("text",), metrics=(), evaluation={"validation": "validation"}
)
NUMBERS = TextTask(
    name="own", kind="regression", text=("text",), label_range=None, metrics=("pearson",),
    evaluation={"validation": "validation"},
)  # fmt: skip
MANY = [f"class {number:03}" for number in range(300)]


def completed(values: Any, validation: Any = None, task: TextTask = OPEN) -> TextTask:
    tables = {"train": ("train", table(values)), "validation": ("validation", table(validation or values))}
    return labels.completed(task, tables)[0]


def table(values: Any) -> pa.Table:
    return pa.table({"text": ["a"] * len(values), "label": values})


def ids(values: Any, *names: str) -> list[int]:
    task = OPEN.model_copy(update={"labels": names})
    return list(text_rows.checked(table(values), task, "rows")["label"].to_pylist())


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["yes", "no", "no"], ("no", "yes")),
        ([10, 9, 2], ("2", "9", "10")),
        (["10", "9", "2"], ("2", "9", "10")),
        ([1.0, 0.0], ("0", "1")),
        ([-1, 1], ("-1", "1")),
        ([True, False], ("false", "true")),
        (["007", "7"], ("007", "7")),
        (["1", "2", "none"], ("1", "2", "none")),
        (pa.array(["b", "a"]).dictionary_encode(), ("a", "b")),
        (pa.array(["b", "a"], pa.large_string()), ("a", "b")),
        (
            [f"class {number:03}" for number in range(300)],
            tuple(f"class {number:03}" for number in range(300)),
        ),
    ],
    ids=str,
)
def test_classes_are_those_of_the_rows(values: Any, names: tuple[str, ...]) -> None:
    task = completed(values)
    assert task.labels == names
    assert task.outputs == len(names)
    assert sorted(set(ids(values, *names))) == list(range(len(names)))


def test_metrics_follow_the_number_of_classes() -> None:
    assert completed(["a", "b"]).metrics == ("accuracy", "f1")
    assert completed(["a", "b", "c"]).metrics == ("accuracy",)
    asked = OPEN.model_copy(update={"metrics": ("matthews",)})
    assert completed(["a", "b"], task=asked).metrics == ("matthews",)
    named = OPEN.model_copy(update={"labels": ("a", "b", "c")})
    assert completed(["a", "b"], task=named).metrics == ("accuracy",)


def test_f1_of_three_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"train: metrics: f1 is that of one class.*f1_macro"):
        completed(["a", "b", "c"], task=OPEN.model_copy(update={"metrics": ("f1",)}))


def test_the_range_is_that_of_all_rows() -> None:
    assert completed([1, 2.5], [-3, 2], task=NUMBERS).label_range == (-3.0, 2.5)
    assert completed(["1e3", "-2"], task=NUMBERS).label_range == (-2.0, 1000.0)
    fixed = NUMBERS.model_copy(update={"label_range": (0.0, 5.0)})
    assert completed([1, 2], task=fixed) == fixed


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1, 1], "no two rows differ"),
        ([1, float("nan")], "finite"),
        ([1, None], "needs a label"),
        (["1", "b"], "number"),
    ],
)
def test_a_regression_without_numbers_is_refused(values: list[Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        completed(values, task=NUMBERS)


def test_a_complete_task_stays_as_it_is() -> None:
    task = OPEN.model_copy(update={"labels": ("no", "yes"), "metrics": ("accuracy",)})
    assert completed(["no", "yes"], task=task) is task


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        (["Not Entailment", "entailment"], ("entailment", "not_entailment"), [1, 0]),
        ([5, 1, 3], ("1", "3", "5"), [2, 0, 1]),
        (["1", "0"], ("no", "yes"), [1, 0]),
        ([1.0, 0.0], ("no", "yes"), [1, 0]),
        (["C++", "C"], ("C", "C++"), [1, 0]),
        (["+", "-"], ("-", "+"), [1, 0]),
    ],
)
def test_values_are_ids_or_names(values: list[Any], names: tuple[str, ...], expected: list[int]) -> None:
    assert ids(values, *names) == expected


@pytest.mark.parametrize(
    ("values", "names"),
    [(["c", "a"], ("C", "C++")), ([2, 0], ("no", "yes")), ([0, 1], ("1", "2")), (["++"], ("-", "+"))],
)
def test_other_values_are_refused(values: list[Any], names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"row 0|row 1"):
        ids(values, *names)
