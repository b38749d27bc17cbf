"""Choice of the candidate to deploy, for each comparison of runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from qexp.records.outcome import outcome_of_several
from qexp.records.record import Record
from qexp.reporting.attempts import describe, first_line, short_name
from qexp.reporting.comparison import Comparison, Row, compare
from qexp.reporting.run_view import RunView
from qexp.reporting.settings import label
from qexp.reporting.table import joined
from qexp.reporting.verdict.candidates import STATES, WITHIN_LOSS, DeploymentCandidate, candidates_of
from qexp.reporting.verdict.speed import Drifts, drifts_of, measurably_faster

Answer = Literal[
    "deployable",
    "simulated",
    "not exported",
    "none",
    "cannot tell",
    "not quantized",
    "failed",
    "interrupted",
]

SAME_SIZE = 1.01
"""Largest ratio of two sizes that count as the same."""


@dataclass(frozen=True)
class Verdict:
    """Answer for the runs of one task, kind of data and budget; the text is in ``sentences``."""

    comparison: Comparison
    candidates: tuple[DeploymentCandidate, ...]
    """Best first."""
    fp32_caveat: str | None
    """Why the FP32 score says nothing, so that no loss against it does; None if it is sound."""
    failures: tuple[str, ...]
    """Descriptions of failed and interrupted runs, with their errors."""
    interrupted: bool = False
    """Whether all of them were interrupted, and none failed."""

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.comparison.task

    @property
    def marks(self) -> tuple[str, ...]:
        """What the numbers cannot show: ``sample``, ``smoke`` or ``limited``."""
        budget = self.comparison.budget
        return (*["sample"] * self.comparison.is_synthetic, *[budget] * (budget != "full"))

    @cached_property
    def best(self) -> DeploymentCandidate | None:
        """The best candidate of sound score, even if none is deployable; None without any."""
        sound = (each for each in self.candidates if each.state not in ("collapsed", "undefined"))
        return next(sound, None)

    @property
    def answer(self) -> Answer:
        """The verdict in a word."""
        if not self.candidates:
            ended: Answer = "interrupted" if self.interrupted else "failed"
            return ended if self.failures else "not quantized"
        if self.fp32_caveat:
            return "cannot tell"
        if self.best and self.best.state in WITHIN_LOSS:
            return self.best.state
        return "none"


def verdicts_of(comparisons: Sequence[Comparison], accepted: float | None = None) -> list[Verdict]:
    """Return a verdict for each comparison.

    Args:
        comparisons: Comparisons of all runs, whose latencies are held against each other.
        accepted: Points of the main score that may be lost; None takes ``accept.loss`` of each run.
    """
    drifts = drifts_of(run for each in comparisons for row in each.rows for run in row.runs)
    return [_verdict(comparison, accepted, drifts) for comparison in comparisons]


def _verdict(comparison: Comparison, accepted: float | None, drifts: Drifts) -> Verdict:
    metric = next(iter(comparison.metrics), "")
    found = [
        replace(candidate, details=_details(comparison, row))
        for row in comparison.rows
        for candidate in candidates_of(row, metric, accepted=accepted, drifts=drifts)
    ]
    failed = without_result(comparison)
    return Verdict(
        comparison=comparison,
        candidates=tuple(_ranked(found)),
        fp32_caveat=_fp32_caveat(found),
        failures=tuple(f"{describe(run)}: {first_line(run)}" for run in failed),
        interrupted=outcome_of_several([run.record for run in failed]) == "interrupted",
    )


def _details(comparison: Comparison, row: Row) -> str:
    """Return the model and the settings in which rows of the same bit-widths and method differ."""
    kind = row.settings.get("method.kind")
    alike = [
        each
        for each in comparison.rows
        if (each.quant, each.settings.get("method.kind")) == (row.quant, kind)
    ]
    several = len({each.model for each in alike}) > 1
    paths = [
        path
        for path in comparison.split.columns
        if path in row.settings and len({each.settings.get(path) for each in alike}) > 1
    ]
    settings = [f"{label(path)} {row.settings[path]}" for path in paths]
    return joined([*([short_name(row.model)] if several else []), *settings])


def verdicts(records: Iterable[Record | RunView], accepted: float | None = None) -> list[Verdict]:
    """Return the verdicts on Records; arguments as in :func:`verdicts_of`."""
    return verdicts_of(compare(records), accepted)


def _ranked(candidates: Sequence[DeploymentCandidate]) -> Iterator[DeploymentCandidate]:
    """Yield candidates by state, and those of a state from the best; beyond the loss, that of least loss."""
    for state in STATES:
        left = sorted((each for each in candidates if each.state == state), key=_points, reverse=True)
        while left:
            best = _best_of(left) if state in WITHIN_LOSS else left[0]
            left = [each for each in left if each is not best]
            yield best


def _best_of(candidates: Sequence[DeploymentCandidate]) -> DeploymentCandidate:
    """Return the fastest; of those equally fast the smallest, of those equally small that of most bits."""
    fastest = max(candidates, key=lambda each: each.speed.ratio or 0.0)
    fast = [
        each for each in candidates if each is fastest or not measurably_faster(fastest.speed, each.speed)
    ]
    smallest = min(fast, key=lambda each: each.size)
    small = [each for each in fast if each is smallest or each.size <= SAME_SIZE * smallest.size]
    return max(small, key=lambda each: (each.row.bits, _points(each), each.speed.ratio or 0.0))


def _points(candidate: DeploymentCandidate) -> float:
    return candidate.change.points if candidate.change else float("-inf")


def _fp32_caveat(candidates: Sequence[DeploymentCandidate]) -> str | None:
    """Return the caveat of the FP32 scores if the runs of all candidates have one."""
    caveats = [next(iter(each.run.record.caveats.get("fp32", {}).values()), None) for each in candidates]
    return caveats[0] if caveats and all(caveats) else None


def without_result(comparison: Comparison) -> list[RunView]:
    """Return the runs that failed or were interrupted, and that no success supersedes."""
    failed = [run for row in comparison.rows for of_seed in row.by_seed.values() for run in of_seed.failed]
    return [*failed, *comparison.refused]
