"""Section of a token classification: what it refuses, and its defaults."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from qexp.config import TokenTask
from qexp.config.token_classification import is_tag
from tests.conftest import experiment


def task_of(**fields: Any) -> TokenTask:
    return TokenTask(
        kind="token_classification",
        name="ner",
        metrics=("f1_span",),
        evaluation={"validation": "v"},
        **fields,
    )


def test_columns_have_the_names_of_conll_on_the_hub() -> None:
    made = experiment("task=token_classification", "data.path=a.jsonl", "data.text=words", "data.label=tags")
    assert isinstance(made.task, TokenTask)
    assert (made.task.text, made.task.label, made.task.scheme) == (("tokens",), "ner_tags", "IOB2")
    assert made.data.columns == {"tokens": "words", "ner_tags": "tags"}
    assert made.task.primary == "f1_span"


@pytest.mark.parametrize("tag", ["O", "B-PER", "I-PER", "B-a-b", "I-_"])
def test_tags_of_iob2(tag: str) -> None:
    assert is_tag(tag, "IOB2")


@pytest.mark.parametrize(
    "tag", ["", "PER", "B", "B-", "B--", "BPER", "E-PER", "S-PER", "b-PER", "o", "O-PER"]
)
def test_what_is_no_tag_of_iob2(tag: str) -> None:
    assert not is_tag(tag, "IOB2")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"labels": ("O", "PER")}, "PER"),
        ({"labels": ("O", "S-PER")}, "scheme=IOB2"),
        ({"labels": ("O", "B-PER", "B-per")}, "name of its own"),
        ({"labels": ("O",)}, "two"),
        ({"text": ("a", "b")}, "text"),
        ({"scheme": "BILOU"}, "IOBES"),
    ],
)
def test_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        task_of(**fields)


def test_each_scheme_has_its_letters() -> None:
    assert task_of(labels=("O", "S-PER"), scheme="IOBES").outputs == 2
