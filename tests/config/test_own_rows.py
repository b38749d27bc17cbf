"""Tasks without rows of their own: names, columns and metrics come from ``data``."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from qexp.artifacts.stage import identity
from qexp.config import Experiment
from qexp.config.validation_errors import explain
from tests.conftest import compose, experiment

PATH = "data.path=some/reviews.v2.csv"


def columns(*words: str) -> dict[str, Any]:
    return dict(experiment(*words).data.columns)


@pytest.mark.parametrize("kind", ["classification", "regression", "question_answering", "translation"])
def test_the_file_names_the_task(kind: str) -> None:
    model = ("model=transformer_tiny",) if kind == "translation" else ()
    made = experiment(f"task={kind}", PATH, *model)
    assert (made.task.kind, made.task.name) == (kind, "reviews.v2")
    assert made.task.evaluation == {"validation": "validation"}
    assert made.data.columns == {}
    assert experiment(f"task={kind}", PATH, "task.name=mine", *model).task.name == "mine"


def test_files_of_another_name_are_one_task_under_a_given_name() -> None:
    """Keys of artifacts hold the task, and so its name."""
    paths = ("data.path=a.csv", "data.path=b.csv")
    one, other = (experiment("task=classification", path).task for path in paths)
    assert identity(one) != identity(other)
    one, other = (experiment("task=classification", path, "task.name=mine").task for path in paths)
    assert identity(one) == identity(other)


@pytest.mark.parametrize("kind", ["classification", "regression", "question_answering"])
def test_a_path_is_needed(kind: str) -> None:
    with pytest.raises(ValidationError) as error:
        experiment(f"task={kind}")
    told = explain(error.value)
    assert "data.path=FILE" in told and kind in told and "\n" not in told


def test_translation_without_a_path_is_multi30k() -> None:
    assert (
        experiment("task=translation", "model=transformer_tiny").task
        == experiment("task=multi30k_en_de", "model=transformer_tiny").task
    )
    words = ("task=translation", "model=transformer_tiny", "task.name=mine", "task.source=a", "task.target=b")
    mine = experiment(*words, "task.evaluation={test: test}").task
    assert mine.model_dump(include={"source", "target", "evaluation"}) == {
        "source": "a", "target": "b", "evaluation": {"test": "test"},
    }  # fmt: skip


def test_columns_by_role() -> None:
    own = ("task=classification", PATH)
    assert columns(*own, "data.text=review", "data.label=stars") == {"text": "review", "label": "stars"}
    pair = experiment(*own, "data.text=[a,b]")
    assert pair.task.model_dump()["text"] == ("text", "text_pair")
    assert pair.data.columns == {"text": "a", "text_pair": "b"}
    by_name = experiment(*own, "data.columns={text: a, text_pair: b, id: null}")
    assert by_name.task == pair.task
    assert columns("task=mnli", PATH, "data.text=[a,b]") == {"premise": "a", "hypothesis": "b"}
    asked = ("task=question_answering", PATH, "data.text=[q,passage]", "data.label=answer")
    assert columns(*asked) == {"question": "q", "context": "passage", "answers": "answer"}
    pairs = ("task=translation", "model=transformer_tiny", PATH, "data.text=fr", "data.label=nl")
    assert columns(*pairs) == {"source": "fr", "target": "nl"}


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["task=mrpc", "data.text=a"], ["data.text=[a]", "task=mrpc reads 2", "sentence1, sentence2"]),
        (["task=classification", PATH, "data.text=[a,b,c]"], ["data.text=[a,b,c]", "text, text_pair"]),
        (
            ["task=sst2", PATH, "data.label=a", "data.columns={label: b}"],
            ["data.label", "data.columns.label=b", "keep one"],
        ),
        (["task=sst2", PATH, "data.root=DIR"], ["path=some", "root=DIR", "leave one"]),
        (["task=sst2", PATH, "data=sample"], ["path=some", "data=sample", "data=local"]),
        (["task=sst2", PATH, "data.columns={text: null}"], ["columns.text=null", "only id"]),
        (["task=sst2", PATH, "data.validation_share=1"], ["data.validation_share=1", "less than 1"]),
        (["task=sst2", "task.labels=[a]"], ["labels", "at least two"]),
        (["task=stsb", "task.metrics=[]"], ["metrics", "pearson, spearman"]),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(words: list[str], parts: list[str]) -> None:
    with pytest.raises(ValidationError) as error:
        experiment(*words)
    told = explain(error.value)
    assert "\n" not in told
    for part in parts:
        assert part in told


def test_a_resolved_experiment_stays_as_it_is() -> None:
    made = experiment("task=classification", PATH, "data.text=[a,b]", "data.label=c")
    again = Experiment.model_validate(made.model_dump(mode="json"))
    assert again == made
    done = made.with_task(made.task.model_copy(update={"labels": ("x", "y"), "metrics": ("accuracy",)}))
    assert Experiment.model_validate(done.model_dump(mode="json")) == done


def test_where_rows_are_does_not_identify_a_run() -> None:
    words = ("task=classification", "task.name=mine")
    first = experiment(*words, PATH, "data.text=a", "data.validation_share=0.3")
    second = experiment(*words, "data.path=other.jsonl", "data.label=b")
    assert first.identity == second.identity
    assert first.identity != experiment(*words, PATH, "data.train_rows=5").identity
    named = first.with_task(first.task.model_copy(update={"labels": ("x", "y")}))
    assert named.identity != first.identity


def test_names_of_files_choose_numbers_of_models() -> None:
    tree = compose("task=classification", PATH)
    tree["model"] = {**tree["model"], "finetune": {"reviews.v2": {"epochs": 7}}}
    assert Experiment.model_validate(tree).finetune.epochs == 7
