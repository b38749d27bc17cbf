"""Sections of trackers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from qexp.config import Trackers
from tests.conftest import compose


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), []),
        (("tracker=none",), []),
        (("tracker=csv",), ["csv"]),
        (("tracker=[csv,wandb]",), ["wandb", "csv"]),
        (("tracker=[wandb,tensorboard,mlflow,csv]",), ["wandb", "tensorboard", "mlflow", "csv"]),
    ],
    ids=str,
)
def test_options_count_together(words: tuple[str, ...], names: list[str]) -> None:
    assert list(Trackers.model_validate(compose("task=mrpc", *words)["tracker"]).chosen) == names


def test_settings_are_of_one_tracker() -> None:
    tree = compose("task=mrpc", "tracker=[wandb,mlflow]", "tracker.wandb.project=mine")["tracker"]
    trackers = Trackers.model_validate(tree)
    assert trackers.wandb and trackers.wandb.project == "mine"
    assert trackers.mlflow and trackers.mlflow.experiment == "qexp"


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"kind": "none"}, []),
        ({"kind": "tensorboard"}, ["tensorboard"]),
        ({"kind": "wandb", "project": "mine", "mode": "offline"}, ["wandb"]),
    ],
    ids=str,
)
def test_the_form_of_earlier_records_is_read(tree: dict[str, Any], names: list[str]) -> None:
    trackers = Trackers.model_validate(tree)
    assert list(trackers.chosen) == names
    assert trackers.wandb is None or trackers.wandb.project == "mine"


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(ValidationError, match="MLFLOW_TRACKING_PASSWORD"):
        Trackers.model_validate({"mlflow": {"uri": "https://me:secret@host/mlflow"}})
    assert Trackers.model_validate({"mlflow": {"uri": "https://host/@me"}}).mlflow
