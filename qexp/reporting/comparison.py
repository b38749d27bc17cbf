"""Comparisons of runs, one for each task, kind of data and budget: rows, and their cells over the seeds."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Literal

from qexp.naming import is_simulated
from qexp.records.outcome import outcome_of_several
from qexp.records.record import Record
from qexp.reporting.attempts import RunsForSeed, attempts, runs_of, short_name
from qexp.reporting.run_view import FLOAT_BITS, Quantity, RunView
from qexp.reporting.settings import ABSENT, SettingsLayout, split_settings

Status = Literal["ok", "partial", "undefined", "failed", "interrupted", "missing"]
BUDGETS = ("full", "limited", "smoke")


@dataclass(frozen=True)
class Cell:
    """One quantity of one row, over the seeds."""

    values: Mapping[int, float | None]
    """Value by seed; None is an undefined value."""
    failed: Mapping[int, RunView]
    """Failed run by seed."""
    missing: tuple[int, ...]
    """Seeds that should have a value, but have neither a value nor a failed run."""

    @cached_property
    def numbers(self) -> list[float]:
        """Defined values in ascending order."""
        return sorted(value for value in self.values.values() if value is not None)

    @property
    def median(self) -> float | None:
        """Median of the defined values, or None if there is none."""
        return median(self.numbers) if self.numbers else None

    @property
    def status(self) -> Status:
        """``ok`` if every seed has a number, ``partial`` if only some have, else the reason why none has."""
        if self.numbers:
            return (
                "ok"
                if not self.failed and not self.missing and None not in self.values.values()
                else "partial"
            )
        if self.failed:
            return outcome_of_several([run.record for run in self.failed.values()])
        return "undefined" if self.values else "missing"


@dataclass(frozen=True)
class Row:
    """One combination of model, bit-widths and settings."""

    model: str
    quant: str
    bits: tuple[int, int]
    settings: Mapping[str, str]
    """Settings that can distinguish rows, by dotted path."""
    by_seed: Mapping[int, RunsForSeed]
    cells: Mapping[Quantity, Cell]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with a successful run."""
        return tuple(seed for seed, of_seed in self.by_seed.items() if of_seed.best)

    @property
    def runs(self) -> list[RunView]:
        """Runs that represent the row, by seed, the successful run before the failed ones."""
        return [run for each in self.by_seed.values() for run in (each.best, *each.failed) if run]

    @property
    def simulated(self) -> bool:
        """Whether no engine of a CPU gains anything from the bit-widths."""
        return is_simulated(self.bits, self.quant)

    def is_doubtful(self, stage: str, metric: str) -> bool:
        """Whether the score of a stage is uninformative about the model of at least one run."""
        return any(run.caveat(stage, metric) for run in self.runs)

    @property
    def broken_parity(self) -> list[RunView]:
        """Runs whose exported graph does not reproduce their scores."""
        return [run for run in self.runs if run.record.parity and not run.record.parity["passed"]]


@dataclass(frozen=True)
class Comparison:
    """Numbers of one comparison table."""

    task: str
    is_synthetic: bool
    """Whether the rows of data are the built-in sample."""
    budget: str
    sources: tuple[str, ...]
    """Sources of the rows of data."""
    metrics: tuple[str, ...]
    """Metrics, the primary one first."""
    seeds: tuple[int, ...]
    """Union of the seeds of all rows."""
    split: SettingsLayout
    rows: tuple[Row, ...]
    refused: tuple[RunView, ...]
    """Runs whose overrides never became a valid experiment, so that they belong to no row."""
    notes: tuple[str, ...]

    def columns_of(self, row: Row) -> tuple[str, ...]:
        """Return the row's values of the settings that have a column."""
        return tuple(row.settings.get(path, ABSENT) for path in self.split.columns)


def compare(records: Iterable[Record | RunView]) -> list[Comparison]:
    """Group Records into comparisons, which never mix sample rows with real data, nor budgets."""
    groups = by_data(runs_of(records))
    return [_comparison(*key, groups[key]) for key in sorted(groups, key=_group_order)]


def by_data(runs: Iterable[RunView]) -> dict[tuple[str, bool, str], list[RunView]]:
    """Group runs by task, sample or real rows, and budget; groups never share a table."""
    groups: dict[tuple[str, bool, str], list[RunView]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.is_synthetic is None):
        is_synthetic = run.is_synthetic
        if (
            is_synthetic is None
        ):  # failed before its source was known: join its siblings, preferably on real rows
            is_synthetic = (run.task, False, run.budget) not in groups and (
                run.task,
                True,
                run.budget,
            ) in groups
        groups[run.task, is_synthetic, run.budget].append(run)
    return groups


def _group_order(key: tuple[str, bool, str]) -> tuple[str, bool, int, str]:
    task, is_synthetic, budget = key
    return task, is_synthetic, *budget_order(budget)


def budget_order(budget: str) -> tuple[int, str]:
    """Return a sort key that places full budgets first, then limited and smoke, then custom ones."""
    return BUDGETS.index(budget) if budget in BUDGETS else len(BUDGETS), budget


def _comparison(task: str, is_synthetic: bool, budget: str, group: Sequence[RunView]) -> Comparison:
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
        is_synthetic=is_synthetic,
        budget=budget,
        sources=sources,
        metrics=tuple(metrics),
        seeds=seeds,
        split=split,
        rows=ordered,
        refused=refused,
        notes=tuple(notes),
    )


def _by_row(runs: Sequence[RunView]) -> Iterator[tuple[dict[str, str], list[RunView]]]:
    """Yield the settings and runs of each row.

    The settings of benchmarks distinguish rows only if runs differ in what they time, not in how.
    """
    benchmarks = {frozenset(run.benchmark.items()) for run in runs if run.benchmark}
    runs_by_key: dict[object, list[RunView]] = defaultdict(list)
    settings_by_key: dict[object, dict[str, str]] = {}
    for run in runs:
        settings = run.settings | (run.benchmark if len(benchmarks) > 1 else {})
        key = run.model, run.quant, frozenset(settings.items())
        runs_by_key[key].append(run)
        settings_by_key[key] = settings
    return ((settings_by_key[key], runs_by_key[key]) for key in runs_by_key)


def _row(settings: Mapping[str, str], runs: Sequence[RunView], seeds: Sequence[int]) -> tuple[Row, list[str]]:
    by_seed: dict[int, RunsForSeed] = {}
    notes: list[str] = []
    for seed in sorted({run.seed for run in runs}):
        by_seed[seed], of_seed = attempts([run for run in runs if run.seed == seed])
        notes += of_seed
    quantities = sorted({name for each in by_seed.values() for name in (*each.promised, *each.measured)})
    cells = {quantity: _cell(quantity, by_seed, seeds) for quantity in quantities}
    return Row(
        runs[0].model, runs[0].quant, bits=runs[0].bits, settings=settings, by_seed=by_seed, cells=cells
    ), notes


def _cell(quantity: Quantity, by_seed: Mapping[int, RunsForSeed], seeds: Sequence[int]) -> Cell:
    values: dict[int, float | None] = {}
    failed: dict[int, RunView] = {}
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
    """Yield the rows that are missing from the grid of the others, for FP32 and quantized rows separately.

    If one or two of model, bit-widths and settings vary, every combination is expected. If all three vary,
    only combinations whose pairs all occur are expected, so that an ablation on one model requires nothing
    of the others.
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
    """Return a row without runs, with the cells of a row of the same settings."""
    cells = {quantity: Cell({}, {}, seeds) for quantity in same_settings.cells}
    return Row(factors[0], factors[1], bits=bits, settings=same_settings.settings, by_seed={}, cells=cells)


def _mixtures(runs: Sequence[RunView]) -> list[str]:
    """Return notes on data and devices that differ within a table although they should not."""
    fingerprints = Counter(
        run.record.data["fingerprint"] for run in runs if run.record.data and run.record.status == "ok"
    )
    devices = Counter(str(run.find("machine.accelerator", "cpu")) for run in runs)
    notes = []
    if len(fingerprints) > 1:
        counts = ", ".join(f"{name[:12]} ({count})" for name, count in fingerprints.most_common())
        notes.append(f"different rows of data, by fingerprint (Records): {counts}; scores compare with care")
    if len(devices) > 1:
        counts = ", ".join(f"{name} ({count})" for name, count in devices.most_common())
        notes.append(f"computed on different devices (Records): {counts}")
    return notes


def _run_order(run: RunView) -> tuple[object, ...]:
    return *order_of(run.model, run.bits), run.seed, run.identity, run.record.key


def _row_order(row: Row, split: SettingsLayout) -> tuple[object, ...]:
    return *order_of(row.model, row.bits), tuple(row.settings.get(path, "") for path in split.columns)


def order_of(model: str, bits: tuple[int, int]) -> tuple[object, ...]:
    """Return a sort key: by model, FP32 first, then descending bit-widths."""
    return short_name(model), model, min(bits) < FLOAT_BITS, -bits[0], -bits[1]
