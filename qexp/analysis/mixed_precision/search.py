"""The search for mixed precision: measure, walk downhill, stop at the budget, and say what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from qexp.analysis.evaluator import Measurement, Rows, decibels
from qexp.analysis.mixed_precision.path import (  # fmt: skip
    Assignment,
    Costs,
    Noise,
    Pair,
    downhill,
    furthest,
    most_precise,
    shares,
    within,
)
from qexp.analysis.mixed_precision.trials import FLOAT, Trials
from qexp.errors import QuantizationError
from qexp.reporting.table import MEBIBYTE, NOT_ASKED, Table, points, score

GIGA = 1e9
COLUMNS = ("bits", "score", "loss", "SQNR (dB)", "size (MiB)", "bit operations (G)", "share of them by bits")


@dataclass(frozen=True)
class Budget:
    """What the assignment must keep to."""

    kind: Literal["loss", "size", "bops"]
    limit: float
    """Points of the metric, MiB, or 10^9 bit operations for one row."""

    @property
    def unit(self) -> Literal["bops", "bytes"]:
        """What is saved on the way."""
        return "bytes" if self.kind == "size" else "bops"

    @property
    def words(self) -> str:
        """In words."""
        limit = f"{self.limit:g}"
        return {
            "loss": f"at most {limit} points below FP32, with the fewest bit operations",
            "size": f"at most {limit} MiB, with the least noise",
            "bops": f"at most {limit}e9 bit operations, with the least noise",
        }[self.kind]


@dataclass
class Search:
    """One search on the trials of a run."""

    trials: Trials
    pairs: tuple[Pair, ...]
    budget: Budget
    rows: Rows
    """Rows that the noise of each group is measured on."""
    known: dict[Assignment, Measurement] = field(default_factory=dict)
    """On all rows of the run."""

    @property
    def costs(self) -> Costs:
        """Costs in what the budget saves."""
        trials = self.trials
        return Costs(trials.work, trials.groups, trials.weights, self.budget.unit)

    def run(self) -> Assignment:
        """The assignment that keeps to the budget, measured.

        Raises:
            QuantizationError: none does.
        """
        self.trials.prepare(self.pairs)
        self._measure("uniform", [self.uniform(pair) for pair in (FLOAT, *self.pairs)])
        noise = self._noise()
        if self.budget.kind != "loss":
            scale = MEBIBYTE if self.budget.kind == "size" else GIGA
            found = within(self.costs, self.pairs, noise, self.budget.limit * scale)
        else:
            found = self._furthest(downhill(self.costs, self.pairs, noise))
        self._measure("found", [found])
        return found

    def uniform(self, pair: Pair) -> Assignment:
        """One pair for all."""
        return (pair,) * len(self.trials.groups)

    def loss(self, assignment: Assignment) -> float | None:
        """Points of the metric below FP32; None where either is undefined."""
        ours, float_score = self.known[assignment].score, self.known[self.uniform(FLOAT)].score
        return None if ours is None or float_score is None else float_score - ours

    def _furthest(self, path: Sequence[Assignment]) -> Assignment:
        def good(assignment: Assignment) -> bool:
            self._measure("budget", [assignment])
            loss = self.loss(assignment)
            return loss is not None and loss <= self.budget.limit

        found = furthest(path, good)
        if found is None:
            raise QuantizationError(
                f"--loss {self.budget.limit:g}: {most_precise(self.pairs).name} everywhere loses "
                f"{points(self.loss(path[0]))} points already; allow more, or add wider pairs with --bits"
            )
        return found

    def _measure(self, title: str, assignments: Sequence[Assignment]) -> None:
        """Evaluate what is not known, on all rows."""
        missing = [each for each in dict.fromkeys(assignments) if each not in self.known]
        count = self.trials.rows.count * len(missing)
        with self.trials.rt.screen.bar(f"search {title}", total=count) as move:
            for each in missing:
                self.known[each] = self.trials.measure(each, move)

    def _noise(self) -> Noise:
        """Of each group at each pair, alone."""
        pairs = [pair for pair in self.pairs if pair != FLOAT]
        groups, noise = self.trials.groups, {(index, FLOAT): 0.0 for index in range(len(self.trials.groups))}
        total = (1 + len(groups) * len(pairs)) * self.rows.count
        with self.trials.rt.screen.bar("search groups", total=total) as move:
            reference = self.trials.measure(self.uniform(FLOAT), move, self.rows)
            for index in range(len(groups)):
                for pair in pairs:
                    alone = (*(FLOAT,) * index, pair, *(FLOAT,) * (len(groups) - index - 1))
                    noise[index, pair] = self.trials.measure(alone, move, self.rows).noise(reference)
        return noise

    def table(self, found: Assignment) -> Table:
        """Uniform bits beside what was found."""
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
        """The bits of each group."""
        rows = tuple((group.name, pair.name) for group, pair in zip(self.trials.groups, found, strict=True))
        return Table("Bits of each group", ("sites", "bits"), rows)

    def _line(self, name: str, assignment: Assignment) -> tuple[str, ...]:
        measured, work = self.known[assignment], self.trials.work
        bits = replace(self.costs, unit="bops").bits(assignment)
        noise = measured.noise(self.known[self.uniform(FLOAT)])
        sqnr = decibels(noise)
        parts = (f"{part} {share:.0%}" for part, share in shares(work, bits).items())
        return (
            name, score(measured.score), points(self.loss(assignment)),
            NOT_ASKED if sqnr is None else f"{sqnr:.1f}", f"{work.bytes(bits) / MEBIBYTE:.2f}",
            f"{work.bops(bits) / GIGA:.2f}", ", ".join(parts),
        )  # fmt: skip
