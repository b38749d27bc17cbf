"""Settings of multi-label tasks: columns, thresholds, and what is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from qexp.config import MultiLabelTask
from qexp.config.validation_errors import explain
from tests.conftest import experiment

OWN = ("task=multi_label", "data.path=rows.jsonl")


def task_of(*words: str) -> MultiLabelTask:
    made = experiment(*OWN, *words).task
    assert isinstance(made, MultiLabelTask)
    return made


def test_columns_of_labels_are_its_labels() -> None:
    assert task_of("data.label=tags").label == "labels"
    assert experiment(*OWN, "data.label=tags").data.columns == {"labels": "tags"}
    made = task_of("data.label=[a,b]")
    assert (made.label, made.labels) == (None, ("a", "b"))


def test_thresholds_are_a_half_unless_given() -> None:
    assert task_of("task.labels=[a,b]").thresholds == (0.5, 0.5)
    made = task_of("task.labels=[a,b]", "task.search.thresholds=[0.3,0.6]")
    assert made.thresholds == (0.3, 0.6)
    assert made.without_decoding == task_of("task.labels=[a,b]")
    open_ = task_of("task.labels=[a,b]", "task.search.fit=each")
    assert open_.chooses_decoding and open_.without_decoding == made.without_decoding
    decided = open_.decided_by([0.2, 0.9])
    assert decided.thresholds == (0.2, 0.9) and not decided.chooses_decoding
    assert MultiLabelTask.model_validate(decided.model_dump()) == decided


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["task.search.thresholds=[1.5]"], ["1.5", "between 0 and 1"]),
        (["task.labels=[a,b]", "task.search.thresholds=[0.5]"], ["1 for 2 labels"]),
        (["task.search.held_out=0.2"], ["held_out=0.2", "fit=fp32"]),
        (["task.search.fit=each", "task.search.thresholds=[0.5]"], ["fit=each"]),
        (["task.label=null"], ["data.label=[NAME,…]"]),
        (["data.label=[a,b]", "task.labels=[b,a]"], ["task.labels=[b,a]", "data.columns"]),
        (["task.labels=[a,A]"], ["a name of its own"]),
        (["task.metrics=[accuracy]"], ["accuracy is none of a multi_label", "subset_accuracy"]),
    ],
)
def test_contradictions_are_refused(words: list[str], told: list[str]) -> None:
    with pytest.raises(ValidationError) as error:
        experiment(*OWN, *words)
    assert all(part in explain(error.value) for part in told), explain(error.value)


def test_several_columns_of_labels_of_another_task_are_refused() -> None:
    with pytest.raises(ValidationError, match="reads one column"):
        experiment("task=classification", "data.path=rows.csv", "data.label=[a,b]")
