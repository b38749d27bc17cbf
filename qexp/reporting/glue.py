"""Averages over GLUE by the conventions of papers, as pure functions of Records.

Papers differ in the metric of a task and in the tasks that they include, so averages are comparable only by
the same convention. An average exists only if every task was run with the same model, bit-widths and
settings, except for settings that may depend on the task (:data:`qexp.reporting.groups.OF_A_TASK`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from qexp.records.outcome import outcome_of_several
from qexp.records.record import Record
from qexp.reporting.attempts import RunsForSeed, runs_of
from qexp.reporting.comparison import Cell, order_of
from qexp.reporting.groups import Candidate, RunGroup, grouped
from qexp.reporting.run_view import Quantity, RunView


@dataclass(frozen=True)
class Convention:
    """Definition of the GLUE average in one paper."""

    name: str
    metrics: Mapping[str, tuple[str, ...]]
    """Keys of the scores whose mean represents a task, by task; the average is the mean over the tasks."""
    source: str

    def average(self, scores: Mapping[str, Sequence[float]]) -> float:
        """Return the mean over the tasks of the mean of each task's scores."""
        return fmean(fmean(scores[task]) for task in self.metrics)

    def description(self) -> str:
        """Return the metrics as text, such as ``cola matthews, mrpc f1, …``."""
        return ", ".join(f"{task} {' and '.join(metrics)}" for task, metrics in self.metrics.items())


_ONE_METRIC = {"cola": ("matthews",), "sst2": ("accuracy",), "qnli": ("accuracy",), "rte": ("accuracy",)}
_MATCHED = {"mnli": ("accuracy@matched",)}
CONVENTIONS = (
    Convention(
        "aimet",
        {
            **_ONE_METRIC,
            **_MATCHED,
            "mrpc": ("f1",),
            "qqp": ("accuracy",),
            "stsb": ("pearson", "spearman"),
        },
        "tables of the AIMET model zoo, which name MRPC F1, QQP accuracy and of STS-B just a correlation: "
        "here the mean of both",
    ),
    Convention(
        "bondarenko",
        {
            **_ONE_METRIC,
            **_MATCHED,
            "mrpc": ("accuracy", "f1"),
            "qqp": ("accuracy", "f1"),
            "stsb": ("pearson", "spearman"),
        },
        "Bondarenko et al. 2021, table 1; that MRPC and QQP are means of accuracy and F1 "
        "is our reading of it",
    ),
    Convention(
        "q8bert",
        {**_ONE_METRIC, "mrpc": ("f1",), "qqp": ("f1",), "stsb": ("pearson",)},
        "Zafrir et al. 2019, table 1, which has no MNLI and gives no average: this is the mean of "
        "its metrics",
    ),
)
TASKS = tuple(dict.fromkeys(task for convention in CONVENTIONS for task in convention.metrics))
BY_NAME = {convention.name: convention for convention in CONVENTIONS}
FEWEST_TASKS = 2
"""Number of tasks from which an average is attempted and its missing tasks are listed."""


@dataclass(frozen=True)
class Average:
    """Average by one convention, for one combination of model, bit-widths and settings."""

    model: str
    quant: str
    bits: tuple[int, int]
    settings: Mapping[str, str]
    convention: Convention
    cells: Mapping[str, Cell]
    """Average by stage, over the seeds."""
    doubtful: frozenset[str]
    """Stages with a score that is uninformative about its model."""
    gaps: tuple[str, ...]
    """Tasks that the average of the last stage lacks and why, such as ``rte failed (seed 2)``."""

    @property
    def has_numbers(self) -> bool:
        """Whether at least one stage of one seed has all of its tasks."""
        return any(cell.numbers for cell in self.cells.values())


def averages(records: Iterable[Record | RunView]) -> list[Average]:
    """Return the averages by every convention of each group of runs with full budgets on real rows."""
    runs = (run for run in runs_of(records) if run.task in TASKS and counts(run))
    results = [
        _average(group, convention)
        for group in grouped((Candidate(run, run.quant, run.settings) for run in runs), FEWEST_TASKS)
        for convention in CONVENTIONS
    ]
    return sorted(results, key=lambda each: (*order_of(each.model, each.bits), sorted(each.settings.items())))


def counts(run: RunView) -> bool:
    """Return whether a run may enter an average: it has a full budget and real rows."""
    return run.budget == "full" and run.is_synthetic is False and not run.refused


def _average(group: RunGroup, convention: Convention) -> Average:
    run = group.example
    cells = {stage: average_cell(group, convention, stage) for stage in run.stages}
    gaps = gaps_of(group, convention, run.stages[-1])
    return Average(
        run.model,
        run.quant,
        bits=run.bits,
        settings=group.settings,
        convention=convention,
        cells=cells,
        doubtful=frozenset(stage for stage in cells if _is_doubtful(group, convention, stage)),
        gaps=gaps,
    )


def _is_doubtful(group: RunGroup, convention: Convention, stage: str) -> bool:
    metrics = convention.metrics
    return any(run.caveat(stage, each) for run in group.members for each in metrics.get(run.task, ()))


def average_cell(group: RunGroup, convention: Convention, stage: str) -> Cell:
    """Return the average of a stage, over the seeds that have every task."""
    lacking = _lacking(group, convention, stage)
    values: dict[int, float | None] = {
        seed: None if lacking[seed] else convention.average(_scores(group, convention, stage, seed))
        for seed in group.seeds
        if set(lacking[seed].values()) <= {"undefined"}
    }
    return Cell(values, {}, tuple(seed for seed in group.seeds if seed not in values))


def gaps_of(group: RunGroup, convention: Convention, stage: str) -> tuple[str, ...]:
    """Return what an average lacks: ``rte missing``, or ``rte failed (seed 2)`` if other seeds have it."""
    return _gaps(_lacking(group, convention, stage))


def _scores(group: RunGroup, convention: Convention, stage: str, seed: int) -> dict[str, list[float]]:
    """Return the scores of a seed by task; all of them have to exist and be defined."""
    return {
        task: [group.runs[task, seed].measured[Quantity("score", stage, metric)] or 0.0 for metric in metrics]
        for task, metrics in convention.metrics.items()
    }


def _lacking(group: RunGroup, convention: Convention, stage: str) -> dict[int, dict[str, str]]:
    """Return the tasks without a number and the reason, by seed."""
    return {
        seed: {
            task: reason
            for task, metrics in convention.metrics.items()
            if (reason := _reason(group.runs.get((task, seed)), stage, metrics))
        }
        for seed in group.seeds
    }


def _reason(of_seed: RunsForSeed | None, stage: str, metrics: Sequence[str]) -> str:
    """Return why a task has no number: ``missing``, ``failed`` or ``undefined``; empty if it has one."""
    if of_seed is None:
        return "missing"
    numbers = [Quantity("score", stage, metric) for metric in metrics]
    if any(number not in of_seed.measured for number in numbers):
        failed = [run.record for run in of_seed.failed]
        return outcome_of_several(failed) if failed else "missing"
    return "undefined" if any(of_seed.measured[number] is None for number in numbers) else ""


def _gaps(lacking: Mapping[int, Mapping[str, str]]) -> tuple[str, ...]:
    seeds: dict[str, list[int]] = defaultdict(list)
    for seed, reasons in lacking.items():
        for task, reason in reasons.items():
            seeds[f"{task} {reason}"].append(seed)
    return tuple(
        gap if len(of_gap) == len(lacking) else f"{gap} (seed {', '.join(map(str, of_gap))})"
        for gap, of_gap in sorted(seeds.items())
    )
