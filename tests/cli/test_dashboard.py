"""The W&B workspace that ``qexp dashboard`` would send."""

from __future__ import annotations

from pathlib import Path

import pytest

from qexp.cli import dashboard
from qexp.records.record import write
from tests.support.record_factory import experiment, record


@pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")  # its own package's validators
def test_runs_are_grouped_and_every_metric_has_its_panels() -> None:
    pytest.importorskip("wandb_workspaces", reason="pip install 'qexp[wandb]'")
    made = dashboard.workspace([record(), record(experiment("cola"))], "me", "qexp")
    spec = made._to_model().model_dump(mode="json")["spec"]["section"]
    text = str(spec)
    for name in ("fp32/f1", "onnx/matthews", "loss/qat", "step/qat", "bytes/int8", "latency/int8/1/p50_ms"):
        assert name in text, name
    groups = str(spec["run_sets"][0]["grouping"])
    for name in ("group", "jobType", "weight_bits", "activation_bits"):
        assert name in groups, name


def test_what_is_missing_is_said(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    assert dashboard.main(["--entity", "me"]) == 2
    assert "pip install 'qexp[wandb]'" in capsys.readouterr().err
    monkeypatch.setattr(dashboard, "find_spec", lambda name: object())
    assert dashboard.main(["--entity", "me"]) == 2
    assert str(outputs / "records") in capsys.readouterr().err


def test_what_wandb_raises_is_one_line(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*words: object) -> None:
        raise RuntimeError("no account")

    write(record(), outputs / "records")
    monkeypatch.setattr(dashboard, "find_spec", lambda name: object())
    monkeypatch.setattr(dashboard, "workspace", refuse)
    assert dashboard.main(["--entity", "me"]) == 1
    assert capsys.readouterr().err == "error: RuntimeError: no account\n"
