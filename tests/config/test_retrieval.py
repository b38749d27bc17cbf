"""Tests of the sections of a retrieval: prompts of models, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from qexp.config import RetrievalTask
from tests.conftest import experiment

OWN = ("task=retrieval", "data.path=rows")
LOGITS = "method.distillation.logits=1"


def task(*words: str) -> RetrievalTask:
    found = experiment(*words).task
    assert isinstance(found, RetrievalTask)
    return found


def test_a_model_brings_its_prompts_and_a_task_may_have_others() -> None:
    assert task(*OWN).prompts == {}
    assert task(*OWN, "model=e5_small").prompts == {"query": "query: ", "document": "passage: "}
    assert set(task(*OWN, "model=bge_small").prompts) == {"query"}
    assert task(*OWN, "model=e5_small", "task.query_prefix=''").prompts == {"document": "passage: "}
    assert experiment("task=stsb_embedding", "model=e5_small").task.prompts == {"text": "query: "}  # type: ignore[attr-defined]
    assert experiment("task=mrpc", "model=e5_small").model.name == "intfloat/e5-small-v2"


def test_defaults_follow_from_the_kind() -> None:
    made = experiment("task=squad_retrieval", "quant=w8a8")
    assert made.finetune.kind == "none"
    assert made.method.distillation.labels == 0 and made.method.distillation.logits == 1  # type: ignore[union-attr]


def test_without_the_new_fields_the_keys_of_other_tasks_are_as_before() -> None:
    identity = experiment("task=stsb_embedding", "quant=w8a8").identity
    assert "prefix" not in identity["task"]
    assert "similarity" not in identity["method"]["distillation"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((*OWN, "task.train=test"), "train=test"),
        ((*OWN, "task.evaluation={test: corpus}"), "corpus"),
        ((*OWN, "task.metrics=[spearman]"), "metrics"),
        ((*OWN, "task.top_k=10"), "top_k"),
        ((*OWN, "data.text=[a]"), "data.text"),
        ((*OWN, "finetune=full"), "finetune=full"),
        ((*OWN, "quant=w8a8", "method.distillation.labels=0.5", LOGITS), "distillation.labels"),
        (("task=retrieval",), "data.path=null"),
        (("task=mrpc", "quant=w8a8", "method.distillation.similarity=1"), "similarity=1"),
        (
            ("task=mrpc", "quant=w8a8", "method.distillation.similarity_temperature=1"),
            "similarity_temperature",
        ),
        ((*OWN, "+model.prompts.passage=x"), "passage"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], part: str, tmp_path: Path) -> None:
    with pytest.raises((ValidationError, ValueError), match=part):
        experiment(*words)


def test_similarities_may_be_all_that_is_learned() -> None:
    words = ("task=stsb_embedding", "quant=w8a8", "method.distillation.similarity=1")
    plan = experiment(*words).method.distillation  # type: ignore[union-attr]
    assert (plan.labels, plan.logits, plan.similarity) == (0, 0, 1)
