"""SIGKILL of a sweep's driver and workers at random moments, and resumption by the same command."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

KILLS = int(os.environ.get("QEXP_TEST_KILLS", "8"))
MOST = 6
"""Kills before a sweep is left alone."""
WORDS = (
    "-m", "task=mrpc", "quant=w8a8,w4a8", "method.epochs=0.5", "finetune.epochs=0.5", "data=sample",
    "deploy=onnx", "budget.evaluation_rows=100", "machine.checkpoint_seconds=0", "machine.threads=1",
)  # fmt: skip
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


class Attempt:
    """One go at the sweep in a process group of its own."""

    def __init__(self, words: Sequence[str], outputs: Path) -> None:
        self.outputs, self.started = outputs, time.monotonic()
        # A file, not a pipe: workers outlive a killed driver for minutes and would keep a pipe open.
        self.log = outputs.with_name(f"{outputs.name}-{self.started}.log")
        with self.log.open("w") as news:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "qexp", *WORDS, *words], start_new_session=True,
                env={**os.environ, "QEXP_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL, stderr=news,
            )  # fmt: skip

    def end(self, seconds: float | None = None) -> str | None:
        """Its news, or None if it goes on after so many seconds."""
        with suppress(subprocess.TimeoutExpired):
            self.driver.wait(timeout=seconds)
            return self.log.read_text(encoding="utf-8")
        return None

    def kill(self, chance: random.Random) -> str:
        """Kill the driver or a process that runs a job; says which, and where it was."""
        jobs = {int(file.name.split("-")[-2]): file for file in self._running()}
        victim = chance.choice(sorted({self.driver.pid, *jobs}))
        stage = _stage(jobs[victim]) if victim in jobs else "no stage"
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        who = "driver" if victim == self.driver.pid else "worker"
        return f"{who} after {time.monotonic() - self.started:4.1f} s in {stage}"

    def _running(self) -> list[Path]:
        """Last words of runs whose process lives."""
        files = (self.outputs / "running").glob("*.json")
        return [file for file in files if Path(f"/proc/{file.name.split('-')[-2]}").exists()]


def _stage(words: Path) -> str:
    with suppress(FileNotFoundError):
        message: str = json.loads(words.read_text())["record"]["error"]["message"]
        return message.split(":")[0].removeprefix("killed in ")
    return "no stage"


def _result(outputs: Path) -> dict[str, Any]:
    """What must not depend on what happened: scores, and every file of every model, bit for bit."""
    records = [json.loads(file.read_text()) for file in (outputs / "records").glob("*.json")]
    manifests = (outputs / "artifacts").glob("[245]-*/*/manifest.json")
    files = {manifest.parent.name: json.loads(manifest.read_text())["files"] for manifest in manifests}
    without_facts = {
        key: {name: sum_ for name, sum_ in of_key.items() if name != "facts.json"}
        for key, of_key in files.items()
    }
    return {"scores": {record["key"]: record["scores"] for record in records}, "files": without_facts}


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("launcher", [(), JOBLIB], ids=["serial", "joblib"])
def test_sweep_that_is_killed_again_and_again_ends_with_the_same_bits(
    launcher: Sequence[str], tiny_bert: Path, tmp_path: Path
) -> None:
    words = [*launcher, f"model.name={tiny_bert}"]
    whole = Attempt(words, tmp_path / "whole")
    assert "2 jobs, 2 ok" in (whole.end() or "")
    duration = time.monotonic() - whole.started
    expected = _result(tmp_path / "whole")
    chance, kills, rounds = random.Random(0), 0, 0
    while kills < KILLS // 2:
        rounds += 1
        outputs, before = tmp_path / f"killed-{rounds}", kills
        while True:
            attempt = Attempt(words, outputs)
            # On a machine that has become slow, all kills may come before anything is done: then it may end.
            moment = chance.uniform(0.15, 0.6) * duration if kills - before < MOST else None
            if (news := attempt.end(moment)) is not None:
                break
            kills += 1
            print(f"round {rounds}, kill {kills}: {attempt.kill(chance)}")
            if (news := attempt.end()) is not None and attempt.driver.returncode != -signal.SIGKILL:
                break
        if kills == before:  # the machine has become fast
            duration = time.monotonic() - attempt.started
        assert "2 jobs, 2 ok" in news, news
        assert _result(outputs) == expected
        environment = {**os.environ, "QEXP_OUTPUTS": str(outputs)}
        subprocess.run([sys.executable, "-m", "qexp", "store", "verify"], env=environment, check=True)
        assert not list((outputs / "artifacts").glob("*/*.work*"))
        print(f"round {rounds}: the same bits after {kills} kills in all")
