"""Run a job in this process with tiny settings, and look at its Record."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from qexp.errors import INVALID
from qexp.execution.job import Job
from tests.conftest import compose

QUICK = ("data=sample", "budget=smoke", "machine.progress=false", "machine.threads=1", "deploy.lengths=[16]")


def run(*words: str, sweep: bool = False) -> tuple[int, dict[str, Any]]:
    """Run a job; its exit code and the Record that it wrote last."""
    code = Job(compose(*words), sweep=sweep).run()
    records = sorted(
        (Path(os.environ["QEXP_OUTPUTS"]) / "records").glob("*.json"),
        key=lambda file: file.stat().st_mtime_ns,
    )
    return code, json.loads(records[-1].read_text())


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a job that is refused before its first stage, without a Record; what it said, on one line."""
    assert Job(compose(*words)).run() == INVALID
    assert not list(Path(os.environ["QEXP_OUTPUTS"]).glob("records/*.json"))
    return " ".join(capsys.readouterr().err.split())


def record_problem() -> str:
    """What the newest Record says went wrong."""
    newest = max(
        (Path(os.environ["QEXP_OUTPUTS"]) / "records").glob("*.json"),
        key=lambda file: file.stat().st_mtime_ns,
    )
    record = json.loads(newest.read_text())
    return str(record["error"] or record["parity"] or record["warnings"])


TAUGHT = (
    "method.distillation.logits=1", "method.distillation.hidden=1", "method.distillation.attention=1",
)  # fmt: skip
