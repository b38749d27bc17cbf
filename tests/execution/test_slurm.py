"""Waiting for killed jobs, and queries of SLURM's job states, without a cluster."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import submitit
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import FailedJobError, UncompletedJobError

from qexp.execution import slurm
from qexp.execution.slurm import restore_sigcont, slurm_job_state, wait_for_all_jobs


class Job:
    """A submitted job; it has ended, well or not."""

    def __init__(self, ending: Any) -> None:
        self.ending = ending
        self.asked = 0

    def results(self) -> list[Any]:
        self.asked += 1
        if isinstance(self.ending, BaseException):
            raise self.ending
        return [self.ending]


def _submits(jobs: Sequence[Job], monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Any]]:
    """What Hydra's launchers do, with jobs that are given."""
    monkeypatch.setattr(submitit.AutoExecutor, "map_array", lambda self, *args: list(jobs))

    def launch() -> list[Any]:
        executor = submitit.AutoExecutor(folder="logs", cluster="debug")
        return [job.results()[0] for job in executor.map_array(print, [1])]

    return launch


@pytest.fixture
def sacct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a shell script the only ``sacct`` there is."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def make(script: str) -> None:
        file = tmp_path / "sacct"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    return make


@pytest.mark.parametrize("lost", [UncompletedJobError("no output"), FailedJobError("exit 1")], ids=repr)
def test_killed_jobs_are_waited_for_like_the_others(
    lost: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = [Job(lost), Job("a"), Job(lost), Job("b")]
    launch = _submits(jobs, monkeypatch)
    with wait_for_all_jobs():
        first, second, third, fourth = launch()
    assert [second, fourth] == ["a", "b"]
    assert first.return_value is third.return_value is None
    assert [job.asked for job in jobs] == [1, 1, 1, 1]


def test_without_patience_the_first_killed_job_ends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reason for it; if this fails, Hydra's launcher may have become patient."""
    monkeypatch.chdir(tmp_path)
    launch = _submits([Job(UncompletedJobError("no output")), Job("a")], monkeypatch)
    with pytest.raises(UncompletedJobError):
        launch()


def test_what_is_no_killed_job_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    launch = _submits([Job(OSError("no route to host"))], monkeypatch)
    with pytest.raises(OSError, match="no route"), wait_for_all_jobs():
        launch()


@pytest.mark.parametrize("error", [None, RuntimeError("no"), KeyboardInterrupt()], ids=repr)
def test_submitit_is_left_as_it_was(error: BaseException | None) -> None:
    before = submitit.AutoExecutor
    caught = None
    try:
        with wait_for_all_jobs():
            assert submitit.AutoExecutor is not before
            if error is not None:
                raise error
    except BaseException as raised:
        caught = raised
    assert caught is error
    assert submitit.AutoExecutor is before


def test_slurm_is_asked_for_the_state_of_one_job(sacct: Callable[[str], None], tmp_path: Path) -> None:
    sacct(f'echo "$@" > {tmp_path}/asked; echo "       CANCELLED by 0     "')
    assert slurm_job_state("7_3") == "CANCELLED by 0"
    assert "--jobs 7_3" in (tmp_path / "asked").read_text()


def test_of_a_job_with_several_lines_the_first_counts(sacct: Callable[[str], None]) -> None:
    sacct('printf "  NODE_FAIL \\n  COMPLETED \\n"')
    assert slurm_job_state("7") == "NODE_FAIL"


@pytest.mark.parametrize(
    "script",
    ["exit 0", "echo 'no connection' >&2; exit 1", "echo 'usage: sacct'; exit 1", "exec sleep 60"],
)
def test_slurm_that_does_not_answer_says_nothing(
    script: str, sacct: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "SECONDS", 0.5)
    sacct(script)
    started = time.monotonic()
    assert slurm_job_state("7") is None
    assert time.monotonic() - started < 10


def test_a_command_that_cannot_be_run_says_nothing(sacct: Callable[[str], None], tmp_path: Path) -> None:
    sacct("")
    (tmp_path / "sacct").write_bytes(b"\x7fELF no program")
    assert slurm_job_state("7") is None


def test_without_slurm_there_is_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm_job_state("7") is None


def test_a_time_limit_is_not_lost_in_the_log_of_another_signal(caplog: pytest.LogCaptureFixture) -> None:
    """SIGCONT, which SLURM sends beside it, is no longer logged by submitit's handler; others' stay."""

    def nothing(number: int, frame: Any) -> None: ...

    before = signal.getsignal(signal.SIGCONT)
    try:
        for handler, kept in (
            (SignalHandler.bypass.__get__(SignalHandler.__new__(SignalHandler)), False),
            (nothing, True),
        ):
            signal.signal(signal.SIGCONT, handler)
            restore_sigcont()
            assert (signal.getsignal(signal.SIGCONT) == handler) is kept
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGCONT)
        assert not caplog.records
    finally:
        signal.signal(signal.SIGCONT, before)
