"""What a deployment asks of searches: filled in for translations, refused for other tasks."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from qexp.config import DeployEngines
from tests.conftest import experiment

TRANSLATES = ("task=translation", "model=transformer_tiny", "data=sample")


def test_a_translation_is_timed_by_beams_where_none_are_chosen() -> None:
    deploy = experiment(*TRANSLATES, "deploy=auto").deploy
    assert isinstance(deploy, DeployEngines)
    assert (deploy.beams, deploy.cache_bits, deploy.shape_of(32)) == ((1, 5), 32, "32xbeam1")


def test_other_tasks_keep_the_fields_that_their_keys_had() -> None:
    deploy = experiment("task=mrpc", "deploy=auto").deploy
    assert not {"beams", "cache_bits"} & set(deploy.model_dump(mode="json"))
    with pytest.raises(ValidationError, match=r"cache_bits=8 with task=mrpc: only translations search"):
        experiment("task=mrpc", "deploy=onnx", "deploy.cache_bits=8")


def test_runtimes_without_a_cache_are_refused_with_those_that_have_one() -> None:
    with pytest.raises(ValidationError, match="allowed are onnxruntime, openvino"):
        experiment(*TRANSLATES, "deploy=torch_int8")
