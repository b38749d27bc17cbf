"""Fixtures without computation: an experiment, its Record, and the outputs folder of its run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from qexp.config import Experiment
from qexp.progress.console import RunConsole
from qexp.records.record import Record
from qexp.tracking.mirror import Mirrors, mirrors_of
from tests.conftest import compose
from tests.support import record_factory
from tests.support.wandb_processes import end_service

CURVES = {
    "fp32": {"step": [10, 20, 30], "loss": [0.7, 0.5, 0.25]},
    "qat": {"step": [5, 10], "loss": [0.4, 0.3]},
}
RANGES = {
    stage: {
        f"encoder.layer.{layer}.output:linear.input": {
            "low": -2.5, "high": 2.0 + layer, "seen_low": -40.0, "seen_high": 3.5,
            "sqnr": None if layer else 31.5,
        }
        for layer in range(3)
    }
    for stage in ("ptq", "qat")
}  # fmt: skip
FP32 = [0, 0, 1, 1, 1, 0]
QAT = [0, 1, 1, 1, 0, 0]
LABELS = [0, 0, 1, 1, 0, 1]
KEY = "0123456789abcdef0123456789abcdef"
WANDB_PLACES = ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_SILENT")


@pytest.fixture(autouse=True)
def _nobody_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No account, no key, no settings of W&B but those of the test; and none left behind."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in (*WANDB_PLACES, "WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.setenv(name, "")  # so that what a run sets is undone
        monkeypatch.delenv(name)
    yield
    end_service()


@pytest.fixture
def console() -> RunConsole:
    """News as text without colours, in ``console.console.file``."""
    import io

    return RunConsole(progress=False, console=Console(file=io.StringIO(), width=1000, highlight=False))


def news(console: RunConsole) -> str:
    """What was said."""
    return str(console.console.file.getvalue())  # type: ignore[attr-defined]


def asked(*words: str) -> Experiment:
    """An experiment of MRPC."""
    return Experiment.model_validate(compose("task=mrpc", *words))


def result(experiment: Experiment, **fields: Any) -> Record:
    """The Record of a whole run of it."""
    known = {"key": KEY, "curves": CURVES, "ranges": RANGES, **fields}
    return record_factory.deployed(experiment.model_dump(mode="json"), **known)


INTERRUPTED: dict[str, Any] = {
    "status": "failed",
    "error": {
        "type": "KeyboardInterrupt",
        "message": "interrupted in fine-tune mrpc; the same command goes on from here",
        "traceback": "…",
    },
}
"""Fields of the Record of a run that Ctrl-C ended."""


def predicted(outputs: Path, experiment: Experiment, **fields: Any) -> Record:
    """A Record with predictions of three stages in the store."""
    stages = []
    for stage, predictions in (("fp32", FP32), ("ptq", LABELS), ("qat", QAT)):
        folder = outputs / "artifacts" / "6-scores" / stage
        folder.mkdir(parents=True, exist_ok=True)
        logits = {f"logit_{each}": np.zeros(6) for each in range(2)}
        order = np.arange(6) if stage == "fp32" else np.arange(6)[::-1]
        columns = {
            "id": np.arange(6),
            "prediction": np.array(predictions),
            "label": np.array(LABELS),
            **logits,
        }
        table = pa.table({name: column[order] for name, column in columns.items()})
        pq.write_table(table, folder / "predictions-validation.parquet")
        stages.append({"stage": "6-scores", "key": stage, "state": "built", "seconds": 1.0})
    graphs = [{"stage": "7-onnx", "key": key, "state": "cached", "seconds": 0.0} for key in ("plain", "int8")]
    stages = stages[: len(result(experiment).scores)]
    return result(experiment, stages=[*stages, *graphs], **fields)


def track(mirror: Mirrors, record: Record) -> None:
    """What a run does: it has its key, then scores, then a Record."""
    mirror.found(record.key, "local")
    for stage, scores in record.scores.items():
        mirror.scored(stage, scores)
    mirror.ends(record)


def mirror(experiment: Experiment, console: RunConsole, outputs: Path, group: str | None = None) -> Mirrors:
    """The mirrors of an experiment that has a tracker."""
    found = mirrors_of(experiment, console, outputs, group)
    assert found.pages
    return found
