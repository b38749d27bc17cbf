"""Extensions of submitit and SLURM for sweeps; the only module that imports submitit."""

from __future__ import annotations

import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

REQUEUED = -1
"""Exit code of submitit for a job that goes back to the queue."""
OUT_OF_TIME = "UncompletedJobError"
"""Name of the exception that submitit raises within a job at its time limit."""
SECONDS = 20
"""Timeout for a query of SLURM's database."""


class NoResult:
    """Placeholder for the result of a job that was killed or could not start."""

    return_value = None


class TolerantJob:
    """Submitted job whose ``results`` never raise for a killed or failed job."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def results(self) -> list[Any]:
        """Return the results of the job, or one :class:`NoResult`."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            results: list[Any] = self.job.results()
        except (FailedJobError, UncompletedJobError):
            return [NoResult()]
        return results


@contextmanager
def wait_for_all_jobs() -> Iterator[None]:
    """Make Hydra's submitit launchers wait for all jobs, even after one was killed.

    Hydra's launcher waits for the results of one job after another, and raises at the first killed one while
    the others still run (hydra-submitit-launcher 1.2.0, ``launch``). It has no hook to change that, so
    ``submitit.AutoExecutor`` is replaced within the block.
    """
    import submitit

    original = submitit.AutoExecutor

    class Executor(original):  # type: ignore[misc, valid-type]
        def map_array(self, *args: Any) -> list[Any]:
            return [TolerantJob(job) for job in super().map_array(*args)]

    submitit.AutoExecutor = Executor  # type: ignore[misc]
    try:
        yield
    finally:
        submitit.AutoExecutor = original  # type: ignore[misc]


def restore_sigcont() -> None:
    """Give SIGCONT its default action again in a job of submitit.

    SLURM sends it with the signal of a time limit. submitit only logs it, and the exception by which it ends
    a job is lost if it is raised within that call: ``logging`` prints what goes wrong in it and goes on
    (submitit 1.5.4). Such a job trains on until SLURM kills it.
    """
    owner = getattr(signal.getsignal(signal.SIGCONT), "__self__", None)
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and type(owner).__module__.startswith("submitit."):
        signal.signal(signal.SIGCONT, signal.SIG_DFL)


def slurm_job_state(job: str) -> str | None:
    """Return SLURM's state of a job, such as ``CANCELLED by 0``; None if it is unknown."""
    if shutil.which("sacct") is None:
        return None
    try:
        process = subprocess.run(
            ["sacct", "--jobs", job, "--format", "State%40", "--noheader", "--allocations"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if process.returncode != 0:
        return None
    return process.stdout.split("\n")[0].strip() or None
