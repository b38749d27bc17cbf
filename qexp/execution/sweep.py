"""A sweep from the driver's side: launch every job, wait for all, and say what came of each.

Launchers are Hydra's. What is added is a ledger, so that neither a job that is killed nor a launcher that
gives up hides what became of the others.
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
from qexp.execution.crash_records import KILLED, bury
from qexp.execution.slurm import patient
from qexp.execution.sweep_log import Entry, Ledger
from qexp.pipeline.results import Outcome
from qexp.records.provenance import git_state, versions
from qexp.records.record import Record, file_record, outputs_root, records_folder

Jobs = Sequence[Sequence[str]]


class Launcher(Protocol):
    """As much of Hydra's launchers as is used."""

    def launch(self, job_overrides: Jobs, initial_job_idx: int) -> Sequence[Any]:
        """Run all jobs; what they returned."""


@dataclass
class Watched:
    """A launcher whose jobs are all accounted for, unless the user interrupts it."""

    launcher: Launcher
    ledger: Ledger
    compose: Callable[[Sequence[str]], Mapping[str, Any]]
    """Configuration of a job from its words."""
    died: set[int] = field(default_factory=set)

    def launch(self, job_overrides: Jobs, initial_job_idx: int) -> Sequence[Any]:
        """Run all jobs; what they returned, or nothing if one of them was lost.

        On Ctrl-C nothing is said in the name of jobs: a scheduler may go on with them.

        Raises:
            LaunchError: The launcher gave up.
        """
        self.ledger.expect(job_overrides, initial_job_idx)
        kind = type(self.launcher).__name__
        detached = kind in ("SlurmLauncher", "LocalLauncher")
        surroundings: AbstractContextManager[None] = patient() if detached else nullcontext()
        launch = self._again if kind == "JoblibLauncher" else self.launcher.launch
        jobs = range(initial_job_idx, initial_job_idx + len(job_overrides))
        try:
            with surroundings:
                results = launch(job_overrides, initial_job_idx)
        except Exception as error:
            self._account(jobs, all_ended=not detached)
            raise LaunchError(
                f"{kind} did not come to its end: {type(error).__name__}: {error}; hydra.launcher.… has what "
                "it asks for, and the ledger's folder its logs"
            ) from error
        self._account(jobs)
        return results

    def _again(self, job_overrides: Jobs, first: int) -> Sequence[Any]:
        """With joblib a worker that is killed takes all others along: launch the rest again.

        Jobs that were running get one more chance, each alone, so that one which always dies, say of a lack
        of memory, takes no other with it. Jobs that have an entry in the ledger return at once.
        """
        patience = 2  # a worker may die before any job could say that it runs
        for _ in range(len(job_overrides) + patience):
            try:
                return self.launcher.launch(job_overrides, first)
            except BrokenProcessPool as error:
                ended = {*self.ledger.entries}
                self._bury()
                dead = {*self.ledger.entries} - ended
                print(f"a worker of the sweep was killed ({type(error).__name__}); going on", file=sys.stderr)
                self.died.update(dead)
                patience -= not dead
                if not patience:
                    raise
        return []

    def _account(self, jobs: Sequence[int], *, all_ended: bool = True) -> None:
        """See that every job has an entry and a Record, and that those which died got their second chance."""
        self._bury(all_ended=all_ended)
        words = self.ledger.jobs
        for job in sorted(self.died):
            self._alone(job, words[job])
        for job in jobs:
            if self.ledger.entry(job) is None:
                self._never_started(job, words[job])

    def _alone(self, job: int, words: Sequence[str]) -> None:
        self.ledger.forget(job)
        try:
            self.launcher.launch([words], job)
        except Exception:
            self._bury()

    def _bury(self, *, all_ended: bool = True) -> None:
        bury(outputs_root(), over=self.ledger if all_ended else None)

    def _never_started(self, job: int, words: Sequence[str]) -> None:
        """File the Record of a job that did not live long enough to do it."""
        message = f"never started, or was killed before it could say so; see the logs in {self.ledger.folder}"
        tree, now = dict(self.compose(words)), datetime.now(UTC).isoformat()
        key = digest(tree)
        with suppress(ValidationError):  # as a run would write it, so that a later one makes up for it
            experiment = Experiment.model_validate(tree)
            tree, key = experiment.model_dump(mode="json"), Outcome().key(experiment)
        record = Record(
            key=key, status="failed", experiment=tree, started=now, finished=now,
            error={"type": KILLED, "message": message, "traceback": ""},
            sweep={"name": self.ledger.name, "id": self.ledger.id, "job": job},
            versions=versions(), git=git_state(),  # type: ignore[arg-type]
        )  # fmt: skip
        file_record(record, records_folder(outputs_root()))
        self.ledger.end(Entry(job=job, words=words, code=FAILED, key=record.key, error=message))
