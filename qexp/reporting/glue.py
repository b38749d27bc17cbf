"""Averages over GLUE, each by the convention of a paper: pure functions of Records.

Papers differ in the metric that stands for a task and in the tasks that count, so an average without the name
of its convention compares with nothing. One exists only where each of its tasks was run with the same model,
bit-widths and settings; of these, only what is a matter of the task may differ (:data:`OF_A_TASK`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from qexp.records import Record
from qexp.reporting.comparison import Cell, order_of
from qexp.reporting.facts import Quantity, Run
from qexp.reporting.selection import Attempts, attempts, without_superseded


@dataclass(frozen=True)
class Convention:
    """What a paper calls the GLUE average."""

    name: str
    metrics: Mapping[str, tuple[str, ...]]
    """Keys of the scores whose mean stands for a task, by task; the average is the mean over the tasks."""
    source: str


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
OF_A_TASK = (
    *("finetune.learning_rate", "finetune.epochs", "finetune.batch_size", "finetune.weight_decay"),
    *("finetune.warmup", "method.learning_rate", "method.range_learning_rate", "method.epochs"),
    *("machine.accelerator", "machine.devices", "machine.accumulate", "machine.compile", "machine.kernels"),
)
"""Settings that may differ between the tasks of one average, beside those of the task itself: how long and
how fast it is trained, and on what."""
FEWEST_TASKS = 2
"""An average is in sight, and its missing tasks worth telling, from so many tasks on."""


@dataclass(frozen=True)
class Average:
    """One convention's average of one combination of model, bit-widths and settings."""

    model: str
    quant: str
    bits: tuple[int, int]
    settings: Mapping[str, str]
    convention: Convention
    cells: Mapping[str, Cell]
    """By stage, over the seeds."""
    gaps: tuple[str, ...]
    """What the average of the last stage lacks, such as ``rte failed (seed 2)``."""


@dataclass(frozen=True)
class _Group:
    """Runs that belong to one average."""

    settings: Mapping[str, str]
    runs: Mapping[tuple[str, int], Attempts]
    """By task and seed."""
    example: Run

    @property
    def seeds(self) -> list[int]:
        """All seeds of any task."""
        return sorted({seed for _, seed in self.runs})


def averages(records: Iterable[Record]) -> list[Average]:
    """Averages of each group of runs with full budgets on real rows, by every convention."""
    runs = [run for run in without_superseded(Run(record) for record in records) if _counts(run)]
    groups: dict[object, list[Run]] = defaultdict(list)
    for run in runs:
        shared = frozenset((path, value) for path, value in run.settings.items() if not _of_a_task(path))
        groups[run.model, run.quant, shared].append(run)
    found = [
        _average(group, convention)
        for members in groups.values()
        if len({run.task for run in members}) >= FEWEST_TASKS
        for group in _variants(members)
        for convention in CONVENTIONS
    ]
    return sorted(found, key=lambda each: (*order_of(each.model, each.bits), sorted(each.settings.items())))


def _counts(run: Run) -> bool:
    return run.task in TASKS and run.budget == "full" and run.made_up is False and not run.refused


def _of_a_task(path: str) -> bool:
    return path in OF_A_TASK or path.startswith("task.")


def _variants(runs: Sequence[Run]) -> Iterator[_Group]:
    """One group, or one for each value of the task's settings that were varied within a task.

    A task that was run with one value only belongs to all groups: its runs are what there is.
    """
    swept = sorted(
        path
        for path in {path for run in runs for path in run.settings if _of_a_task(path)}
        if any(len(values) > 1 for values in _by_task(runs, (path,)).values())
    )
    by_task = _by_task(runs, swept)
    several = dict.fromkeys(value for values in by_task.values() if len(values) > 1 for value in values)
    for chosen in several or [()]:
        members = [
            run
            for values in by_task.values()
            for run in (next(iter(values.values())) if len(values) == 1 else values.get(chosen, ()))
        ]
        shared = {path: value for path, value in members[0].settings.items() if not _of_a_task(path)}
        settings = shared | dict(zip(swept, chosen, strict=True))
        yield _Group(settings, _attempts(members), members[0])


def _by_task(runs: Sequence[Run], paths: Sequence[str]) -> dict[str, dict[tuple[str, ...], list[Run]]]:
    """Runs by task and by the values of settings."""
    found: dict[str, dict[tuple[str, ...], list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        found[run.task][tuple(run.settings.get(path, "-") for path in paths)].append(run)
    return found


def _attempts(runs: Sequence[Run]) -> dict[tuple[str, int], Attempts]:
    by_seed: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in runs:
        by_seed[run.task, run.seed].append(run)
    return {key: attempts(of_seed)[0] for key, of_seed in by_seed.items()}


def _average(group: _Group, convention: Convention) -> Average:
    run, cells = group.example, dict[str, Cell]()
    for stage in run.stages:
        lacking = _lacking(group, convention, stage)
        values: dict[int, float | None] = {
            seed: None if lacking[seed] else fmean(_numbers(group, convention, stage, seed))
            for seed in group.seeds
            if set(lacking[seed].values()) <= {"undefined"}
        }
        cells[stage] = Cell(values, {}, tuple(seed for seed in group.seeds if seed not in values))
    gaps = _gaps(_lacking(group, convention, run.stages[-1]))
    return Average(run.model, run.quant, run.bits, group.settings, convention, cells, gaps)


def _numbers(group: _Group, convention: Convention, stage: str, seed: int) -> Iterator[float]:
    """What stands for each task; all are there and defined."""
    for task, metrics in convention.metrics.items():
        measured = group.runs[task, seed].measured
        yield fmean(measured[Quantity("score", stage, metric)] or 0.0 for metric in metrics)


def _lacking(group: _Group, convention: Convention, stage: str) -> dict[int, dict[str, str]]:
    """By seed, the tasks without a number, and why."""
    return {
        seed: {
            task: reason
            for task, metrics in convention.metrics.items()
            if (reason := _reason(group.runs.get((task, seed)), stage, metrics))
        }
        for seed in group.seeds
    }


def _reason(of_seed: Attempts | None, stage: str, metrics: Sequence[str]) -> str:
    """Why a task has no number: ``missing``, ``failed``, ``undefined``; empty if it has one."""
    if of_seed is None:
        return "missing"
    numbers = [Quantity("score", stage, metric) for metric in metrics]
    if any(number not in of_seed.measured for number in numbers):
        return "failed" if of_seed.failed else "missing"
    return "undefined" if any(of_seed.measured[number] is None for number in numbers) else ""


def _gaps(lacking: Mapping[int, Mapping[str, str]]) -> tuple[str, ...]:
    """``rte missing``, or ``rte failed (seed 2)`` where other seeds have it."""
    seeds: dict[str, list[int]] = defaultdict(list)
    for seed, reasons in lacking.items():
        for task, reason in reasons.items():
            seeds[f"{task} {reason}"].append(seed)
    return tuple(
        gap if len(of_gap) == len(lacking) else f"{gap} (seed {', '.join(map(str, of_gap))})"
        for gap, of_gap in sorted(seeds.items())
    )
