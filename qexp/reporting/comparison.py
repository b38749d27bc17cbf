"""One comparison for each task, kind of data and budget: rows, and their cells over the seeds."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Literal

from qexp.records.record import Record
from qexp.reporting.attempts import Attempts, attempts, runs_of, short_name
from qexp.reporting.run_view import FLOAT_BITS, INTEGER_KERNEL_BITS, Quantity, Run
from qexp.reporting.settings import ABSENT, Split, split_settings

Status = Literal["ok", "partial", "undefined", "failed", "missing"]
BUDGETS = ("full", "limited", "smoke")


@dataclass(frozen=True)
class Cell:
    """One quantity of one row over the seeds."""

    values: Mapping[int, float | None]
    """By seed; None is undefined."""
    failed: Mapping[int, Run]
    """By seed."""
    missing: tuple[int, ...]
    """Seeds that other rows have."""

    @cached_property
    def numbers(self) -> list[float]:
        """Defined values, ascending."""
        return sorted(value for value in self.values.values() if value is not None)

    @property
    def median(self) -> float | None:
        """Median of the defined values, None without any."""
        return median(self.numbers) if self.numbers else None

    @property
    def status(self) -> Status:
        """``ok`` when every seed has a number, ``partial`` when some have, else what is in the way."""
        if self.numbers:
            return (
                "ok"
                if not self.failed and not self.missing and None not in self.values.values()
                else "partial"
            )
        return "failed" if self.failed else "undefined" if self.values else "missing"


@dataclass(frozen=True)
class Row:
    """One combination of model, bit-widths and settings."""

    model: str
    quant: str
    bits: tuple[int, int]
    settings: Mapping[str, str]
    """Those that can tell rows apart, by dotted path."""
    by_seed: Mapping[int, Attempts]
    cells: Mapping[Quantity, Cell]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with a run that succeeded."""
        return tuple(seed for seed, of_seed in self.by_seed.items() if of_seed.best)

    @property
    def runs(self) -> list[Run]:
        """Runs that speak for the row: by seed, the one that succeeded before those that failed."""
        return [run for each in self.by_seed.values() for run in (each.best, *each.failed) if run]

    @property
    def simulated(self) -> bool:
        """Whether a bit-width is below what an integer kernel computes with."""
        return min(self.bits) < INTEGER_KERNEL_BITS

    @property
    def broken_parity(self) -> list[Run]:
        """Runs whose exported graph did not reproduce their scores."""
        return [run for run in self.runs if run.record.parity and not run.record.parity["passed"]]


@dataclass(frozen=True)
class Comparison:
    """One table, still in numbers."""

    task: str
    made_up: bool
    """Rows of data are the built-in sample."""
    budget: str
    sources: tuple[str, ...]
    """Where rows came from."""
    metrics: tuple[str, ...]
    """The primary one first."""
    seeds: tuple[int, ...]
    """All seeds that any row has."""
    split: Split
    rows: tuple[Row, ...]
    refused: tuple[Run, ...]
    """Runs whose words never became an experiment: no row can be named for them."""
    notes: tuple[str, ...]

    def columns_of(self, row: Row) -> tuple[str, ...]:
        """The row's settings that have a column."""
        return tuple(row.settings.get(path, ABSENT) for path in self.split.columns)


def compare(records: Iterable[Record | Run]) -> list[Comparison]:
    """Sort Records into comparisons: sample apart from real data, smoke apart from full budgets."""
    groups = by_data(runs_of(records))
    return [_comparison(*key, groups[key]) for key in sorted(groups, key=_group_order)]


def by_data(runs: Iterable[Run]) -> dict[tuple[str, bool, str], list[Run]]:
    """Runs by task, whether rows are made up, and budget: what shares no table."""
    groups: dict[tuple[str, bool, str], list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.made_up is None):
        made_up = run.made_up
        if made_up is None:  # failed before its data was found: goes with its siblings, real ones first
            made_up = (run.task, False, run.budget) not in groups and (run.task, True, run.budget) in groups
        groups[run.task, made_up, run.budget].append(run)
    return groups


def _group_order(key: tuple[str, bool, str]) -> tuple[str, bool, int, str]:
    task, made_up, budget = key
    return task, made_up, *budget_order(budget)


def budget_order(budget: str) -> tuple[int, str]:
    """Full budgets first, smoke last, others of the user's own behind."""
    return BUDGETS.index(budget) if budget in BUDGETS else len(BUDGETS), budget


def _comparison(task: str, made_up: bool, budget: str, group: Sequence[Run]) -> Comparison:
    refused = tuple(run for run in group if run.refused)
    runs = sorted((run for run in group if not run.refused), key=_run_order)
    seeds = tuple(sorted({run.seed for run in runs}))
    rows, notes = [], _mixtures(runs)
    for settings, of_row in _by_row(runs):
        row, of_selection = _row(settings, of_row, seeds)
        rows.append(row)
        notes += of_selection
    split = split_settings([{"model": row.model, "quant": row.quant, **row.settings} for row in rows])
    missing = list(_missing_rows(rows, split.columns, seeds)) if rows else []
    if len(missing) > len(rows):
        notes.append(
            f"missing: {len(missing)} of the combinations of these settings, more than there are rows"
        )
        missing = []
    metrics = dict.fromkeys(metric for run in runs for metric in run.metrics)
    sources = tuple(sorted({run.source for run in runs if run.source}))
    ordered = tuple(sorted([*rows, *missing], key=lambda row: _row_order(row, split)))
    return Comparison(
        task=task,
        made_up=made_up,
        budget=budget,
        sources=sources,
        metrics=tuple(metrics),
        seeds=seeds,
        split=split,
        rows=ordered,
        refused=refused,
        notes=tuple(notes),
    )


def _by_row(runs: Sequence[Run]) -> Iterator[tuple[dict[str, str], list[Run]]]:
    """Settings and runs of each row; a benchmark's settings tell rows apart only where they differ."""
    benchmarks = {frozenset(run.benchmark.items()) for run in runs if run.benchmark}
    found: dict[object, list[Run]] = defaultdict(list)
    told: dict[object, dict[str, str]] = {}
    for run in runs:
        settings = run.settings | (run.benchmark if len(benchmarks) > 1 else {})
        key = run.model, run.quant, frozenset(settings.items())
        found[key].append(run)
        told[key] = settings
    return ((told[key], found[key]) for key in found)


def _row(settings: Mapping[str, str], runs: Sequence[Run], seeds: Sequence[int]) -> tuple[Row, list[str]]:
    by_seed: dict[int, Attempts] = {}
    notes: list[str] = []
    for seed in sorted({run.seed for run in runs}):
        by_seed[seed], of_seed = attempts([run for run in runs if run.seed == seed])
        notes += of_seed
    quantities = sorted({name for each in by_seed.values() for name in (*each.promised, *each.measured)})
    cells = {quantity: _cell(quantity, by_seed, seeds) for quantity in quantities}
    return Row(runs[0].model, runs[0].quant, runs[0].bits, settings, by_seed, cells), notes


def _cell(quantity: Quantity, by_seed: Mapping[int, Attempts], seeds: Sequence[int]) -> Cell:
    values: dict[int, float | None] = {}
    failed: dict[int, Run] = {}
    missing: list[int] = []
    for seed in seeds:
        of_seed = by_seed.get(seed)
        if of_seed is None:
            missing.append(seed)
        elif quantity in of_seed.measured:
            values[seed] = of_seed.measured[quantity]
        elif failure := of_seed.failure(quantity):
            failed[seed] = failure
        elif quantity in of_seed.promised:
            missing.append(seed)
    return Cell(values, failed, tuple(missing))


def _missing_rows(rows: Sequence[Row], columns: Sequence[str], seeds: tuple[int, ...]) -> Iterator[Row]:
    """Combinations that the others call for, of FP32 rows and of quantized ones.

    Where one or two of model, bit-widths and settings vary: every combination. Where all three do:
    those of which each pair occurs, so that an ablation on one model asks nothing of the others.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    for quantized in (False, True):
        alike = [row for row in rows if (row.quant != "fp32") == quantized]
        present = {_factors(row, columns): row for row in alike}
        quants = list(dict.fromkeys(row.quant for row in alike))
        settings = list(dict.fromkeys(factors[2] for factors in present))
        varying = sum(len(choices) > 1 for choices in (models, quants, settings))
        pairs = {pair for factors in present for pair in _pairs(factors)}
        of_settings = {factors[2]: row for factors, row in reversed(present.items())}
        of_quant = {factors[1]: row for factors, row in reversed(present.items())}
        for factors in itertools.product(models, quants, settings):
            if factors not in present and (varying < 3 or pairs.issuperset(_pairs(factors))):
                yield _missing_row(factors, of_settings[factors[2]], of_quant[factors[1]].bits, seeds)


Factors = tuple[str, str, tuple[str | None, ...]]


def _factors(row: Row, columns: Sequence[str]) -> Factors:
    return row.model, row.quant, tuple(row.settings.get(path) for path in columns)


def _pairs(factors: Factors) -> list[tuple[object, ...]]:
    return [("model", "quant", *factors[:2]), ("quant", *factors[1:]), ("model", factors[0], factors[2])]


def _missing_row(factors: Factors, same_settings: Row, bits: tuple[int, int], seeds: tuple[int, ...]) -> Row:
    """A row without any run, with the cells that a row of the same settings has."""
    cells = {quantity: Cell({}, {}, seeds) for quantity in same_settings.cells}
    return Row(factors[0], factors[1], bits, same_settings.settings, {}, cells)


def _mixtures(runs: Sequence[Run]) -> list[str]:
    """Notes on what a table compares although it should not differ."""
    fingerprints = Counter(
        run.record.data["fingerprint"] for run in runs if run.record.data and run.record.status == "ok"
    )
    devices = Counter(str(run.find("machine.accelerator", "cpu")) for run in runs)
    notes = []
    if len(fingerprints) > 1:
        told = ", ".join(f"{name[:12]} ({count})" for name, count in fingerprints.most_common())
        notes.append(f"different rows of data, by fingerprint (Records): {told}; scores compare with care")
    if len(devices) > 1:
        told = ", ".join(f"{name} ({count})" for name, count in devices.most_common())
        notes.append(f"computed on different devices (Records): {told}")
    return notes


def _run_order(run: Run) -> tuple[object, ...]:
    return *order_of(run.model, run.bits), run.seed, run.identity, run.record.key


def _row_order(row: Row, split: Split) -> tuple[object, ...]:
    return *order_of(row.model, row.bits), tuple(row.settings.get(path, "") for path in split.columns)


def order_of(model: str, bits: tuple[int, int]) -> tuple[object, ...]:
    """By model; FP32 first, then from many bits to few."""
    return short_name(model), model, min(bits) < FLOAT_BITS, -bits[0], -bits[1]
