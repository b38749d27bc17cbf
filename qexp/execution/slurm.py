"""What submitit and SLURM do not do for a sweep by themselves.

The only file that knows submitit.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

REQUEUED = -1
"""Code with which submitit leaves the process of a job that goes back to the queue."""
OUT_OF_TIME = "UncompletedJobError"
"""Name of what submitit raises in a job whose time is up, wherever that job is."""
SECONDS = 20
"""How long SLURM's database may take to answer."""


class Lost:
    """Stands for what a job would have returned that was killed, or could not even start."""

    return_value = None


class Awaited:
    """A submitted job that can be waited for without regard to how it ends."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def results(self) -> list[Any]:
        """What the job returned, or one :class:`Lost`."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            results: list[Any] = self.job.results()
        except (FailedJobError, UncompletedJobError):
            return [Lost()]
        return results


@contextmanager
def patient() -> Iterator[None]:
    """Within it, Hydra's submitit launchers wait for all jobs, also after one was killed.

    Hydra's launcher asks one job after the other for its results and lets the first killed one end it,
    while the rest still run (hydra-submitit-launcher 1.2.0, ``launch``). It offers no other place to step in.
    """
    import submitit

    impatient = submitit.AutoExecutor

    class Executor(impatient):  # type: ignore[misc, valid-type]
        def map_array(self, *args: Any) -> list[Any]:
            return [Awaited(job) for job in super().map_array(*args)]

    submitit.AutoExecutor = Executor  # type: ignore[misc]
    try:
        yield
    finally:
        submitit.AutoExecutor = impatient  # type: ignore[misc]


def verdict(job: str) -> str | None:
    """What SLURM says of a job, such as ``CANCELLED by 0``; None where it does not say."""
    if shutil.which("sacct") is None:
        return None
    try:
        done = subprocess.run(
            ["sacct", "--jobs", job, "--format", "State%40", "--noheader", "--allocations"],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return done.stdout.split("\n")[0].strip() or None
