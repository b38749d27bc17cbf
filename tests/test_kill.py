"""kill -9 at random moments of a whole run, and what the same command makes of it afterwards."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

WORDS = (
    "task=mrpc", "quant=w4a8", "method.epochs=0.5", "finetune.epochs=0.5", "data=sample", "deploy=onnx",
    "budget.evaluation_rows=100", "machine.checkpoint_seconds=0", "machine.threads=1",
)  # fmt: skip


def _run(model: Path, outputs: Path, seconds: float | None = None) -> subprocess.CompletedProcess[str] | None:
    """The finished run, or None where it was killed (SIGKILL) after so many seconds."""
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            [sys.executable, "-m", "qexp", *WORDS, f"model.name={model}"], timeout=seconds,
            env={**os.environ, "QEXP_OUTPUTS": str(outputs)}, capture_output=True, text=True,
        )  # fmt: skip
    return None


def _record(outputs: Path) -> dict[str, Any]:
    (file,) = (outputs / "records").glob("*.json")
    record: dict[str, Any] = json.loads(file.read_text())
    return record


def _moment(moments: random.Random, duration: float, kills: int) -> float | None:
    """When to kill next; after six kills the run is left alone."""
    return moments.uniform(0.15, 0.45) * duration if kills < 6 else None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_scores(
    tiny_bert: Path, tmp_path: Path
) -> None:
    started = time.monotonic()
    assert _run(tiny_bert, tmp_path / "whole") is not None
    duration = time.monotonic() - started
    moments, kills = random.Random(0), 0
    while (done := _run(tiny_bert, tmp_path / "killed", _moment(moments, duration, kills))) is None:
        kills += 1
    assert done.returncode == 0, done.stderr
    assert kills >= 2
    whole, killed = _record(tmp_path / "whole"), _record(tmp_path / "killed")
    assert killed["scores"] == whole["scores"]
    assert killed["key"] == whole["key"]
    assert not list((tmp_path / "killed" / "artifacts").glob("*/*.work"))
