"""Tags and notes of a run: what a tag may be, and that neither is part of what is computed."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from qexp.config import Experiment
from qexp.config.tracking import LONGEST_TAG
from qexp.config.validation_errors import explain
from qexp.pipeline.results import RunResults
from tests.conftest import compose, experiment


def test_neither_is_part_of_a_key_or_changes_what_a_run_is() -> None:
    plain = experiment("task=mrpc")
    tagged = experiment("task=mrpc", "tags=[baseline,v2]", "note='as in the paper, twice'")
    assert tagged.tags == ("baseline", "v2") and tagged.note == "as in the paper, twice"
    assert plain.tags == () and plain.note is None
    assert tagged.identity == plain.identity
    assert RunResults().key(tagged) == RunResults().key(plain)


@pytest.mark.parametrize("tag", ["x" * LONGEST_TAG, "zwei Wörter", "v1.2_a-b"])
def test_tags_that_every_tracker_takes(tag: str) -> None:
    assert Experiment.model_validate({**compose("task=mrpc"), "tags": [tag]}).tags == (tag,)


@pytest.mark.parametrize(
    ("tags", "part"),
    [
        ([""], "1 to 64 characters"),
        (["x" * (LONGEST_TAG + 1)], "1 to 64 characters"),
        ([" a"], "no space at its ends"),
        (["a/b"], "none of them a slash"),
        (["a", "a"], "each tag once"),
        ("a", "tags"),
    ],
)
def test_other_tags_are_refused_in_one_line(tags: object, part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Experiment.model_validate({**compose("task=mrpc"), "tags": tags})
    message = explain(caught.value)
    assert part in message and "\n" not in message


def test_a_note_that_is_empty_is_refused() -> None:
    with pytest.raises(ValidationError):
        Experiment.model_validate({**compose("task=mrpc"), "note": ""})
