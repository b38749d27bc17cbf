"""Sweeps as a process: a failed or killed job stops no other, and the same command resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qexp.errors import FAILED, OK
from qexp.execution.job import Job
from qexp.execution.sweep_log import SweepLog
from qexp.pipeline.stages import evaluate
from qexp.records.record import read_all, records_folder
from tests.conftest import compose

QUICK = (
    "task=mrpc", "data=sample", "deploy=none", "budget=smoke", "budget.evaluation_rows=20",
    "finetune.epochs=0.05", "machine.progress=false", "machine.threads=1",
)  # fmt: skip
LONG = (*QUICK[:-3], "finetune.epochs=1", "machine.checkpoint_seconds=0.2", *QUICK[-2:])


class Sweep:
    """A sweep in a process of its own."""

    def __init__(self, model: Path, outputs: Path, *words: str) -> None:
        self.outputs = outputs
        self.driver = subprocess.Popen(
            [sys.executable, "-m", "qexp", "-m", f"model.name={model}", *words], text=True,
            env={**os.environ, "QEXP_OUTPUTS": str(outputs)}, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def wait(self) -> tuple[int, str]:
        """Its exit code and its news."""
        _, news = self.driver.communicate(timeout=250)
        return self.driver.returncode, news

    @property
    def sweep_log(self) -> SweepLog:
        """Of the last attempt."""
        return SweepLog(max((self.outputs / "sweeps").glob("*/*/sweep.json")).parent)

    @property
    def states(self) -> dict[int, list[str]]:
        """Whether stages were built or cached, by job."""
        return {job: [stage["state"] for stage in of.stages] for job, of in self.sweep_log.entries.items()}

    def worker(self, *stages: str) -> tuple[int, int]:
        """A job that is in one of the stages, and the process that runs it."""
        for _ in range(5000):
            assert self.driver.poll() is None, "the sweep has ended"
            for file in sorted((self.outputs / "running").glob("*.json")):
                with suppress(FileNotFoundError):
                    record = json.loads(file.read_text())["record"]
                    if any(f"in {stage}" in record["error"]["message"] for stage in stages):
                        return record["sweep"]["job"], int(file.stem.split("-")[-2])
            time.sleep(0.02)
        raise AssertionError(f"no job came to {stages}")


def _records(outputs: Path) -> list[Any]:
    records, unreadable = read_all(records_folder(outputs))
    assert not unreadable
    return records


@pytest.mark.slow
def test_a_job_that_fails_stops_no_other_and_the_same_command_does_what_is_missing(
    tiny_bert: Path, outputs: Path
) -> None:
    words = (*QUICK, "quant=fp32", "finetune.learning_rate=1e-4,1e30,2e-4")
    first = Sweep(tiny_bert, outputs, *words)
    code, news = first.wait()
    assert code == FAILED
    assert "3 jobs, 2 ok, 1 not" in news
    assert "  job 1: finetune.learning_rate=1e+30: failed: " in news
    assert "Traceback" not in news
    before = first.sweep_log
    assert [before.entries[job].status for job in range(3)] == ["ok", "failed", "ok"]
    assert "built" in first.states[2]
    errors = {record.sweep["job"]: record.error for record in _records(outputs)}
    assert errors[0] is None is errors[2]
    assert errors[1]["type"] == "TrainingError"
    again = Sweep(tiny_bert, outputs, *words)
    code, news = again.wait()
    assert code == FAILED
    assert again.sweep_log != before
    assert again.sweep_log.folder.parent == before.folder.parent
    assert "0 stages built" in news
    assert len(_records(outputs)) == 3


@pytest.mark.slow
def test_two_sweeps_at_the_same_time_build_every_stage_once(tiny_bert: Path, outputs: Path) -> None:
    words = (*QUICK, "method=ptq", "quant=w8a8", "calibration.samples=16")
    both = [Sweep(tiny_bert, outputs, *words, f"hydra.sweep.dir={outputs}/{name}") for name in "ab"]
    for sweep in both:
        code, news = sweep.wait()
        assert code == OK, news
    sweep_logs = [SweepLog(file.parent) for file in outputs.glob("*/sweep.json")]
    assert len(sweep_logs) == 2
    built = Counter(
        (stage["stage"], stage["key"])
        for sweep_log in sweep_logs
        for entry in sweep_log.entries.values()
        for stage in entry.stages
        if stage["state"] == "built"
    )
    assert set(built.values()) == {1}
    assert Counter(stage for stage, _ in built) == {
        "1-tokens": 1, "2-fp32": 1, "3-statistics": 1, "4-ranges": 1, "6-scores": 2
    }  # fmt: skip


def test_two_versions_of_a_stage_share_a_store(
    tiny_bert: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = compose(*QUICK, "quant=fp32", f"model.name={tiny_bert}")

    def built() -> list[str]:
        assert Job(tree).run() == OK
        (record,) = _records(outputs)
        return [stage["stage"] for stage in record.stages if stage["state"] == "built"]

    assert built() == ["1-tokens", "2-fp32", "6-scores"]
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "STAGE", replace(evaluate.STAGE, version=evaluate.STAGE.version + 1))
        assert built() == ["6-scores"]
        assert built() == []
    assert built() == []
    assert len(list((outputs / "artifacts" / "6-scores").iterdir())) == 2


def test_a_record_of_a_newer_version_stays_readable(tiny_bert: Path, outputs: Path) -> None:
    tree = compose(*QUICK, "quant=fp32", f"model.name={tiny_bert}")
    assert Job(tree).run() == OK
    (file,) = records_folder(outputs).iterdir()
    old = json.loads(file.read_text())
    newer = {
        **old,
        "energy": {"joules": 3.5},
        "experiment": {**old["experiment"], "pruning": {"kind": "none"}},
    }
    newer["stages"] = [{**stage, "host": "a"} for stage in old["stages"]]
    file.write_text(json.dumps(newer))
    (record,) = _records(outputs)
    assert record.scores == old["scores"]
    assert record.experiment["pruning"] == {"kind": "none"}
    assert Job(tree).run() == OK


@pytest.mark.slow
def test_joblib_jobs_all_end_well_although_a_worker_is_killed(
    tiny_bert: Path, outputs: Path, tmp_path: Path
) -> None:
    words = (
        *LONG,
        "method=ptq",
        "quant=w8a8,w4a8",
        "seed=1,2",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    )
    sweep = Sweep(tiny_bert, outputs, *words)
    _, process = sweep.worker("2-fp32")
    os.kill(process, signal.SIGKILL)
    code, news = sweep.wait()
    assert code == OK, news
    assert "a worker of the sweep was killed" in news
    assert "4 jobs, 4 ok, 0 not" in news
    again = Sweep(tiny_bert, outputs, *words)
    code, news = again.wait()
    assert code == OK, news
    assert "0 stages built" in news
    assert {record.status for record in _records(outputs)} == {"ok"}
    assert not list((outputs / "running").glob("*.json"))


@pytest.mark.slow
def test_submitit_on_one_machine_a_killed_job_says_so_and_the_others_finish(
    tiny_bert: Path, outputs: Path
) -> None:
    words = (*LONG, "method=ptq", "quant=w8a8", "seed=1,2,3", "hydra/launcher=submitit_local")
    sweep = Sweep(tiny_bert, outputs, *words)
    job, process = sweep.worker("2-fp32")
    os.kill(process, signal.SIGKILL)
    code, news = sweep.wait()
    assert code == FAILED, news
    assert "3 jobs, 2 ok, 1 not" in news
    entries = sweep.sweep_log.entries
    assert [each for each in entries if entries[each].code == FAILED] == [job]
    (failed,) = (record for record in _records(outputs) if record.status == "failed")
    assert failed.error["type"] == "Killed"
    assert "killed in 2-fp32" in failed.error["message"]
    again = Sweep(tiny_bert, outputs, *words)
    code, news = again.wait()
    assert code == OK, news
    assert {each for each, states in again.states.items() if "built" in states} == {job}
    assert {record.status for record in _records(outputs)} == {"ok"}


@pytest.mark.slow
def test_a_driver_that_is_killed_loses_nothing(tiny_bert: Path, outputs: Path) -> None:
    words = (*LONG, "method=ptq", "quant=w8a8", "seed=1,2")
    sweep = Sweep(tiny_bert, outputs, *words)
    sweep.worker("3-statistics", "4-ranges", "6-scores")  # each of which may be over before one looks
    sweep.driver.kill()
    sweep.driver.communicate()
    again = Sweep(tiny_bert, outputs, *words)
    code, news = again.wait()
    assert code == OK, news
    assert again.states[0][:2] == ["cached", "cached"]
    assert {record.status for record in _records(outputs)} == {"ok"}
