"""Selection of the Records that represent one row and seed, with notes on the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from qexp.records.outcome import outcome, reason
from qexp.records.record import Record
from qexp.reporting.run_view import Quantity, RunView


@dataclass(frozen=True)
class RunsForSeed:
    """Runs of one row and seed: the chosen success, and failures that no success supersedes."""

    best: RunView | None
    """The chosen run among those that succeeded, or None."""
    failed: tuple[RunView, ...]
    """Failed runs of experiments without any success, newest first."""

    @cached_property
    def measured(self) -> dict[Quantity, float | None]:
        """Value by quantity, including what a failed run measured before it failed."""
        numbers: dict[Quantity, float | None] = {}
        for run in (*reversed(self.failed), *([self.best] if self.best else [])):
            numbers |= run.measured
        return numbers

    @cached_property
    def promised(self) -> frozenset[Quantity]:
        """Quantities that at least one of the runs should have measured."""
        runs = (*self.failed, *([self.best] if self.best else []))
        return frozenset[Quantity]().union(*(run.promised for run in runs))

    def failure(self, quantity: Quantity) -> RunView | None:
        """Return the newest failed run that should have measured a quantity, or None."""
        return next((run for run in self.failed if quantity in run.promised), None)


def runs_of(records: Iterable[Record | RunView]) -> list[RunView]:
    """Return views of the Records, without failures that a later success supersedes.

    A later success of the identical experiment supersedes a failure, but a success on sample rows does not
    supersede a failure on real rows that were asked for. Views are passed through as they are, so that the
    same view serves all tables.
    """
    runs = [each if isinstance(each, RunView) else RunView(each) for each in records]
    successes = defaultdict(list)
    for run in runs:
        if run.record.status == "ok":
            successes[run.identity].append(run)
    return [run for run in runs if not any(_supersedes(ok, run) for ok in successes[run.identity])]


def _supersedes(ok: RunView, run: RunView) -> bool:
    if run.record.status == "ok" or run.record.finished_at > ok.record.finished_at:
        return False
    return run.is_synthetic is None or run.is_synthetic == ok.is_synthetic


def attempts(runs: Sequence[RunView]) -> tuple[RunsForSeed, list[str]]:
    """Choose the run that represents one row and seed, with notes on the runs that were not chosen.

    Runs that differ only in their deployment have the same scores, so the one that deployed more is chosen.
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
    return RunsForSeed(best, tuple(open_failures)), notes


def describe(run: RunView) -> str:
    """Return a short description for notes, such as ``minilm w8a8 qat seed 1``."""
    return f"{short_name(run.model)} {run.quant} {run.method} seed {run.seed}"


def short_name(model: str) -> str:
    """Return the last path component of a model's name or folder."""
    return model.rstrip("/").rsplit("/", 1)[-1] or model


def first_line(run: RunView) -> str:
    """Return the type and the first line of the error of a failed run, or how an interrupted one goes on."""
    return reason(run.record)


def _deployed(run: RunView) -> int:
    return 2 if run.record.latency else 1 if run.record.bytes else 0


def _later_failure(run: RunView) -> str:
    ended = "was interrupted" if outcome(run.record) == "interrupted" else "failed"
    return (
        f"{describe(run)}: a later run of the same experiment {ended} on {run.record.finished} "
        f"({first_line(run)}); the earlier result is shown"
    )


def _duplicates(runs: Sequence[RunView]) -> list[str]:
    """Return a note if one experiment succeeded more than once; ``runs`` are sorted newest first."""
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
