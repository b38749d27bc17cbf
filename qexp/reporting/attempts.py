"""Which Records speak for one row and seed, and what is said about the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from qexp.records.record import Record
from qexp.reporting.run_view import Quantity, Run


@dataclass(frozen=True)
class Attempts:
    """All that is known of one row and seed."""

    best: Run | None
    """The run that succeeded, or None."""
    failed: tuple[Run, ...]
    """Failures that no success has made up for, the newest first."""

    @cached_property
    def measured(self) -> dict[Quantity, float | None]:
        """Numbers; a failed run gives those that it had before it failed."""
        found: dict[Quantity, float | None] = {}
        for run in (*reversed(self.failed), *([self.best] if self.best else [])):
            found |= run.measured
        return found

    @cached_property
    def promised(self) -> frozenset[Quantity]:
        """Numbers that were asked for."""
        runs = (*self.failed, *([self.best] if self.best else []))
        return frozenset[Quantity]().union(*(run.promised for run in runs))

    def failure(self, quantity: Quantity) -> Run | None:
        """The failed run that should have measured it, if there is one."""
        return next((run for run in self.failed if quantity in run.promised), None)


def runs_of(records: Iterable[Record | Run]) -> list[Run]:
    """Records read for tables, but a failed one where a later one of the identical experiment succeeded.

    A success on sample rows does not make up for a failure on real ones that were asked for. Runs are taken
    as they are: what was read of them once serves all tables.
    """
    runs = [each if isinstance(each, Run) else Run(each) for each in records]
    successes = defaultdict(list)
    for run in runs:
        if run.record.status == "ok":
            successes[run.identity].append(run)
    return [run for run in runs if not any(_supersedes(ok, run) for ok in successes[run.identity])]


def _supersedes(ok: Run, run: Run) -> bool:
    if run.record.status == "ok" or run.record.finished_at > ok.record.finished_at:
        return False
    return run.made_up is None or run.made_up == ok.made_up


def attempts(runs: Sequence[Run]) -> tuple[Attempts, list[str]]:
    """Choose among the runs of one row and seed; the notes tell what was not chosen.

    Of runs that differ in their deployment only, the one with more of it is chosen: the scores are the same.
    """
    newest = sorted(runs, key=lambda run: run.record.finished_at, reverse=True)
    succeeded = [run for run in newest if run.record.status == "ok"]
    best = max(succeeded, key=_deployed) if succeeded else None
    failed = [run for run in newest if run.record.status == "failed"]
    identities = {run.identity for run in succeeded}
    open_failures = [run for run in failed if run.identity not in identities]
    notes = [_later_failure(run) for run in failed if run.identity in identities]
    for identity in dict.fromkeys(run.identity for run in succeeded):
        notes += _duplicates([run for run in succeeded if run.identity == identity])
    return Attempts(best, tuple(open_failures)), notes


def describe(run: Run) -> str:
    """A run in a few words, for notes."""
    return f"{short_name(run.model)} {run.quant} {run.method} seed {run.seed}"


def short_name(model: str) -> str:
    """Last part of a model's name or folder."""
    return model.rstrip("/").rsplit("/", 1)[-1] or model


def first_line(run: Run) -> str:
    """Type and first line of the error of a failed run."""
    error = run.record.error
    if error is None:
        return "no error was recorded"
    message = error["message"].strip().splitlines()
    return f"{error['type']}: {message[0]}" if message and message[0] != error["type"] else error["type"]


def _deployed(run: Run) -> int:
    return 2 if run.record.latency else 1 if run.record.bytes else 0


def _later_failure(run: Run) -> str:
    return (
        f"{describe(run)}: a later run of the same experiment failed on {run.record.finished} "
        f"({first_line(run)}); the earlier result is shown"
    )


def _duplicates(runs: Sequence[Run]) -> list[str]:
    """Note on several successes of one experiment, the newest first."""
    if len({run.record.key for run in runs}) < 2:
        return []
    newest, others = runs[0], [run.record.key for run in runs[1:]]
    fingerprints = {run.record.data["fingerprint"] for run in runs if run.record.data}
    checkpoints = {run.record.model.get("fingerprint") for run in runs if run.record.model}
    devices = {str(run.find("machine.accelerator", "cpu")) for run in runs}
    reasons = [
        reason
        for reason, values in (
            ("different rows of data", fingerprints),
            ("different checkpoints", checkpoints),
            ("different devices", devices),
        )
        if len(values) > 1
    ]
    why = f" ({' and '.join(reasons)})" if reasons else ""
    return [
        f"{describe(newest)}: {len(runs)} Records of the same experiment{why}; "
        f"the newest, {newest.record.key}, is shown and {', '.join(others)} left out"
    ]
