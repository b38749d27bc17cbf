"""Search for mixed precision: measure the noise of groups, follow a greedy path, and stop at the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from qexp.analysis.evaluator import EvaluationRows, Measurement, decibels
from qexp.analysis.mixed_precision.path import (
    Assignment,
    BitWidthPair,
    Costs,
    Noise,
    bisect_last_acceptable,
    cheapest_within,
    greedy_path,
    most_precise,
    shares,
)
from qexp.analysis.mixed_precision.trials import FLOAT, CandidateEvaluator
from qexp.errors import QuantizationError
from qexp.reporting.table import MEBIBYTE, NOT_REQUESTED, Table, points, score

GIGA = 1e9
COLUMNS = ("bits", "score", "loss", "SQNR (dB)", "size (MiB)", "bit operations (G)", "share of them by bits")


@dataclass(frozen=True)
class SearchLimit:
    """Budget of a search: a limit on the loss or on the cost of the assignment."""

    kind: Literal["loss", "size", "bops"]
    limit: float
    """Points of the metric, MiB, or 10^9 bit operations for one row."""

    @property
    def unit(self) -> Literal["bops", "bytes"]:
        """Unit of the cost that the search reduces."""
        return "bytes" if self.kind == "size" else "bops"

    @property
    def words(self) -> str:
        """Description of the limit."""
        limit = f"{self.limit:g}"
        return {
            "loss": f"at most {limit} points below FP32, with the fewest bit operations",
            "size": f"at most {limit} MiB, with the least noise",
            "bops": f"at most {limit}e9 bit operations, with the least noise",
        }[self.kind]


@dataclass
class MixedPrecisionSearch:
    """Search for an assignment of bit-widths to the groups of a run's model."""

    trials: CandidateEvaluator
    pairs: tuple[BitWidthPair, ...]
    budget: SearchLimit
    rows: EvaluationRows
    """Rows on which the noise of each group is measured."""
    known: dict[Assignment, Measurement] = field(default_factory=dict)
    """Measurements so far, on all rows of the run."""

    @property
    def costs(self) -> Costs:
        """Costs in the unit of the budget."""
        trials = self.trials
        return Costs(trials.work, trials.groups, trials.weights, self.budget.unit)

    def run(self) -> Assignment:
        """Search for an assignment within the budget, and measure it.

        Raises:
            QuantizationError: If no assignment meets the budget.
        """
        self.trials.prepare(self.pairs)
        self._measure("uniform", [self.uniform(pair) for pair in (FLOAT, *self.pairs)])
        noise = self._noise()
        if self.budget.kind != "loss":
            scale = MEBIBYTE if self.budget.kind == "size" else GIGA
            assignment = cheapest_within(self.costs, self.pairs, noise, self.budget.limit * scale)
        else:
            assignment = self._last_within_loss(greedy_path(self.costs, self.pairs, noise))
        self._measure("found", [assignment])
        return assignment

    def uniform(self, pair: BitWidthPair) -> Assignment:
        """Return the assignment of one pair to all groups."""
        return (pair,) * len(self.trials.groups)

    def loss(self, assignment: Assignment) -> float | None:
        """Return the loss against FP32, in points of the metric; None if either score is undefined."""
        own_score, float_score = self.known[assignment].score, self.known[self.uniform(FLOAT)].score
        return None if own_score is None or float_score is None else float_score - own_score

    def _last_within_loss(self, path: Sequence[Assignment]) -> Assignment:
        def good(assignment: Assignment) -> bool:
            self._measure("budget", [assignment])
            loss = self.loss(assignment)
            return loss is not None and loss <= self.budget.limit

        last = bisect_last_acceptable(path, good)
        if last is None:
            raise QuantizationError(
                f"--loss {self.budget.limit:g}: {most_precise(self.pairs).name} everywhere loses "
                f"{points(self.loss(path[0]))} points already; allow more, or add wider pairs with --bits"
            )
        return last

    def _measure(self, title: str, assignments: Sequence[Assignment]) -> None:
        """Evaluate assignments without a measurement on all rows of the run."""
        missing = [each for each in dict.fromkeys(assignments) if each not in self.known]
        count = self.trials.rows.count * len(missing)
        with self.trials.ctx.console.bar(f"search {title}", total=count) as advance:
            for each in missing:
                self.known[each] = self.trials.measure(each, advance)

    def _noise(self) -> Noise:
        """Measure the noise of each group at each pair, with all other groups in FP32."""
        pairs = [pair for pair in self.pairs if pair != FLOAT]
        groups, noise = self.trials.groups, {(index, FLOAT): 0.0 for index in range(len(self.trials.groups))}
        total = (1 + len(groups) * len(pairs)) * self.rows.count
        with self.trials.ctx.console.bar("search groups", total=total) as advance:
            reference = self.trials.measure(self.uniform(FLOAT), advance, self.rows)
            for index in range(len(groups)):
                for pair in pairs:
                    alone = (*(FLOAT,) * index, pair, *(FLOAT,) * (len(groups) - index - 1))
                    noise[index, pair] = self.trials.measure(alone, advance, self.rows).noise(reference)
        return noise

    def table(self, found: Assignment) -> Table:
        """Return a table that compares the assignment with uniform bit-widths."""
        rows = [("FP32", self.uniform(FLOAT)), *((pair.name, self.uniform(pair)) for pair in self.pairs)]
        metric, trials = self.trials.rows.task.metrics[0], self.trials
        caption = (
            f"{metric} in percent on {trials.rows.count} rows of {trials.rows.split}; loss in points. Size "
            f"of all parameters; bit operations of one row of {trials.work.tokens} tokens.",
            f"Searched: {self.budget.words}; noise of each of {len(trials.groups)} groups measured on "
            f"{self.rows.count} rows.",
        )
        lines = tuple(self._line(*each) for each in (*rows, ("found", found)))
        return Table(f"Mixed precision of {trials.title}", COLUMNS, lines, caption)

    def groups_table(self, found: Assignment) -> Table:
        """Return a table of the bit-widths of each group."""
        rows = tuple((group.name, pair.name) for group, pair in zip(self.trials.groups, found, strict=True))
        return Table("Bits of each group", ("sites", "bits"), rows)

    def _line(self, name: str, assignment: Assignment) -> tuple[str, ...]:
        measured, work = self.known[assignment], self.trials.work
        bits = replace(self.costs, unit="bops").bits(assignment)
        noise = measured.noise(self.known[self.uniform(FLOAT)])
        sqnr = decibels(noise)
        parts = (f"{part} {share:.0%}" for part, share in shares(work, bits).items())
        return (
            name,
            score(measured.score),
            points(self.loss(assignment)),
            NOT_REQUESTED if sqnr is None else f"{sqnr:.1f}",
            f"{work.bytes(bits) / MEBIBYTE:.2f}",
            f"{work.bops(bits) / GIGA:.2f}",
            ", ".join(parts),
        )
