"""The W&B workspace that ``qexp dashboard`` would send."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from qexp.cli import dashboard
from qexp.records.record import write
from qexp.tracking.page_charts import OF_RUN
from tests.support.page_records import forty
from tests.support.record_factory import experiment, record
from tests.support.wandb_processes import end_service


@pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")  # its own package's validators
def test_runs_are_grouped_and_every_metric_has_its_panels() -> None:
    pytest.importorskip("wandb_workspaces", reason="pip install 'qexp[wandb]'")
    made = dashboard.workspace([record(), record(experiment("cola"))], "me", "qexp")
    spec = made._to_model().model_dump(mode="json")["spec"]["section"]
    text = str(spec)
    for name in (
        *("fp32/f1", "onnx/matthews", "loss/qat", "step/qat", "bytes/int8", "latency/int8/1/p50_ms"),
        *("score_loss/f1", "stddev", *(f"pictures/{name}" for name in OF_RUN)),
    ):
        assert name in text, name
    groups = str(spec["run_sets"][0]["grouping"])
    for name in ("group", "jobType", "weight_bits", "activation_bits"):
        assert name in groups, name


def test_the_page_of_all_runs_is_written_without_an_account(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb", reason="pip install 'qexp[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)
    for run in forty():
        write(run, outputs / "records")
    folders = []
    for _ in range(2):
        assert dashboard.main(["--entity", "me", "--charts"]) == 0
        assert "wandb sync" in capsys.readouterr().out
        folders += (outputs / "wandb").glob("offline-run-*-qexp-charts")
        time.sleep(1.1)  # folders are named by the second
    end_service()
    first, second = folders  # the second took the place of the first, which was never sent
    assert first != second
    tables = second / "files" / "media" / "table" / "tables"
    (scatter,) = (tables / "loss_against_latency").glob("cola*.json")
    assert "latency of batch 1 (ms, p50)" in json.loads(scatter.read_text())["columns"]
    (seeds,) = tables.glob("seeds*.json")
    assert {"mean", "standard deviation"} <= {*json.loads(seeds.read_text())["columns"]}
    pictures = {path.parent.name for path in (second / "files/media/images/pictures").rglob("*.png")}
    assert {"loss_against_latency", "loss_against_size", "seeds"} <= pictures
    assert b"wandb/scatter/v0" in next(second.glob("*.wandb")).read_bytes()


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
