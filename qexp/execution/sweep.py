"""Supervision of a sweep: launches every job, waits for all, and accounts for each.

The launchers are Hydra's. The sweep log is added, so that neither a killed job nor a launcher that gives up
hides the results of the other jobs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import ValidationError

from qexp.artifacts import digest
from qexp.config import Experiment
from qexp.errors import FAILED, LaunchError
from qexp.execution.crash_records import KILLED, record_dead_runs
from qexp.execution.slurm import wait_for_all_jobs
from qexp.execution.sweep_log import JobResult, SweepLog
from qexp.pipeline.results import RunResults
from qexp.records.provenance import git_state, versions
from qexp.records.record import Record, outputs_root, records_folder, save_record

Jobs = Sequence[Sequence[str]]


class Launcher(Protocol):
    """Interface of Hydra's launchers, as far as it is used."""

    def launch(self, job_overrides: Jobs, initial_job_idx: int) -> Sequence[Any]:
        """Run all jobs, and return their results."""


@dataclass
class SupervisedLauncher:
    """Launcher that leaves a result for every job, unless the user interrupts it."""

    launcher: Launcher
    sweep_log: SweepLog
    compose: Callable[[Sequence[str]], Mapping[str, Any]]
    """Function that composes the configuration of a job from its overrides."""
    died: set[int] = field(default_factory=set)

    def launch(self, job_overrides: Jobs, initial_job_idx: int) -> Sequence[Any]:
        """Run all jobs, and return their results; empty if jobs were lost and had to be run again.

        After Ctrl-C no result is written for the remaining jobs, because a scheduler may continue them.

        Raises:
            LaunchError: The launcher gave up.
        """
        self.sweep_log.expect(job_overrides, initial_job_idx)
        kind = type(self.launcher).__name__
        detached = kind in ("SlurmLauncher", "LocalLauncher")
        launcher_context: AbstractContextManager[None] = wait_for_all_jobs() if detached else nullcontext()
        launch = self._relaunch if kind == "JoblibLauncher" else self.launcher.launch
        jobs = range(initial_job_idx, initial_job_idx + len(job_overrides))
        try:
            with launcher_context:
                results = launch(job_overrides, initial_job_idx)
        except Exception as error:
            self._account(jobs, all_ended=not detached)
            raise LaunchError(
                f"{kind} did not come to its end: {type(error).__name__}: {error}; hydra.launcher.… has what "
                "it asks for, and the ledger's folder its logs"
            ) from error
        self._account(jobs)
        return results

    def _relaunch(self, job_overrides: Jobs, first: int) -> Sequence[Any]:
        """Launch the remaining jobs again after a worker was killed, as joblib then stops all workers.

        Jobs that were running are retried later, each alone, so that one that always dies, for instance for
        lack of memory, does not stop others. Jobs that have an entry in the sweep log return at once.
        """
        attempts = 2  # a worker may die before any job has written a pending Record
        for _ in range(len(job_overrides) + attempts):
            try:
                return self.launcher.launch(job_overrides, first)
            except BrokenProcessPool as error:
                ended = {*self.sweep_log.entries}
                self._record_dead()
                dead = {*self.sweep_log.entries} - ended
                print(f"a worker of the sweep was killed ({type(error).__name__}); going on", file=sys.stderr)
                self.died.update(dead)
                attempts -= not dead
                if not attempts:
                    raise
        return []

    def _account(self, jobs: Sequence[int], *, all_ended: bool = True) -> None:
        """Retry the jobs that died, and make sure that every job has an entry and a Record."""
        self._record_dead(all_ended=all_ended)
        overrides = self.sweep_log.jobs
        for job in sorted(self.died):
            self._retry_alone(job, overrides[job])
        for job in jobs:
            if self.sweep_log.entry(job) is None:
                self._record_unstarted(job, overrides[job])

    def _retry_alone(self, job: int, overrides: Sequence[str]) -> None:
        self.sweep_log.forget(job)
        try:
            self.launcher.launch([overrides], job)
        except Exception:
            self._record_dead()

    def _record_dead(self, *, all_ended: bool = True) -> None:
        record_dead_runs(outputs_root(), over=self.sweep_log if all_ended else None)

    def _record_unstarted(self, job: int, overrides: Sequence[str]) -> None:
        """Write the Record of a job that was killed before it could write one itself."""
        message = (
            f"never started, or was killed before it could say so; see the logs in {self.sweep_log.folder}"
        )
        tree, now = dict(self.compose(overrides)), datetime.now(UTC).isoformat()
        key = digest(tree)
        with suppress(ValidationError):  # the key that a run would use, so that a later success replaces it
            experiment = Experiment.model_validate(tree)
            tree, key = experiment.model_dump(mode="json"), RunResults().key(experiment)
        record = Record(
            key=key,
            status="failed",
            experiment=tree,
            started=now,
            finished=now,
            error={"type": KILLED, "message": message, "traceback": ""},
            sweep={"name": self.sweep_log.name, "id": self.sweep_log.id, "job": job},
            versions=versions(),
            git=git_state(),  # type: ignore[arg-type]
        )
        save_record(record, records_folder(outputs_root()))
        self.sweep_log.end(JobResult(job=job, words=overrides, code=FAILED, key=record.key, error=message))
