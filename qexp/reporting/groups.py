"""Runs of several tasks that belong to one row: the same model, bit-widths and settings.

Of the settings, only what is a matter of the task may differ between the tasks of a row (:data:`OF_A_TASK`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import fmean

from qexp.reporting.attempts import Attempts, attempts
from qexp.reporting.comparison import Cell
from qexp.reporting.run_view import Quantity, Run

OF_A_TASK = (
    *("finetune.learning_rate", "finetune.epochs", "finetune.batch_size", "finetune.weight_decay"),
    *("finetune.warmup", "method.learning_rate", "method.range_learning_rate", "method.epochs"),
    *("machine.accelerator", "machine.devices", "machine.accumulate", "machine.compile", "machine.kernels"),
)
"""Settings that may differ between the tasks of one row, beside those of the task itself: how long and how
fast it is trained, and on what."""

DIGITS = 6
"""Behind the point, to which scores of one artifact agree."""

Settings = Mapping[str, str]


@dataclass(frozen=True)
class Candidate:
    """A run, with those of its settings that tell rows apart."""

    run: Run
    quant: str
    settings: Settings

    @cached_property
    def own(self) -> Settings:
        """Settings that are a matter of the task."""
        return {path: value for path, value in self.settings.items() if of_a_task(path)}

    @cached_property
    def shared(self) -> frozenset[tuple[str, str]]:
        """Settings that all tasks of a row share."""
        return frozenset((path, value) for path, value in self.settings.items() if not of_a_task(path))


@dataclass(frozen=True)
class Group:
    """Runs of one row."""

    settings: Settings
    runs: Mapping[tuple[str, int], Attempts]
    """By task and seed."""
    members: Sequence[Run]

    @property
    def example(self) -> Run:
        """Any of the runs."""
        return self.members[0]

    @cached_property
    def seeds(self) -> list[int]:
        """All seeds of any task."""
        return sorted({seed for _, seed in self.runs})

    @property
    def tasks(self) -> set[str]:
        """Tasks with a run, also with a failed one."""
        return {task for task, _ in self.runs}

    def disagreeing(self, stage: str) -> list[str]:
        """``mrpc (seed 1)``: where runs that should have the same scores of the stage have different ones."""
        known: dict[tuple[str, int], set[tuple[tuple[str, float | None], ...]]] = defaultdict(set)
        for run in self.members:
            scores = run.record.scores.get(stage, {}) if run.record.status == "ok" else {}
            if scores:
                rounded = {name: value and round(value, DIGITS) for name, value in scores.items()}
                known[run.task, run.seed].add(tuple(sorted(rounded.items())))
        return [f"{task} (seed {seed})" for (task, seed), found in sorted(known.items()) if len(found) > 1]

    def cell(self, task: str, stage: str, metrics: Sequence[str]) -> Cell:
        """The mean of a task's metrics over the seeds."""
        values: dict[int, float | None] = {}
        failed: dict[int, Run] = {}
        missing: list[int] = []
        quantities = [Quantity("score", stage, metric) for metric in metrics]
        for seed in self.seeds:
            of_seed = self.runs.get((task, seed))
            if of_seed and all(quantity in of_seed.measured for quantity in quantities):
                values[seed] = mean_of([of_seed.measured[quantity] for quantity in quantities])
            elif of_seed and of_seed.failed:
                failed[seed] = of_seed.failed[0]
            else:
                missing.append(seed)
        return Cell(values, failed, tuple(missing))


def mean_of(numbers: Sequence[float | None]) -> float | None:
    """Mean, or None where a number is undefined."""
    defined = [number for number in numbers if number is not None]
    return fmean(defined) if len(defined) == len(numbers) else None


def grouped(candidates: Iterable[Candidate], fewest_tasks: int = 1) -> Iterator[Group]:
    """Groups of runs, each with at least so many tasks before its variants are told apart."""
    found: dict[object, list[Candidate]] = defaultdict(list)
    for each in candidates:
        found[each.run.model, each.quant, each.shared].append(each)
    for members in found.values():
        if len({each.run.task for each in members}) >= fewest_tasks:
            yield from _variants(members)


@cache
def of_a_task(path: str) -> bool:
    """Whether a setting may differ between the tasks of a row."""
    return path in OF_A_TASK or path.startswith("task.")


def _variants(candidates: Sequence[Candidate]) -> Iterator[Group]:
    """One group, or one for each value of the task's settings that were varied within a task.

    A task that was run with one value only belongs to all groups: its runs are what there is.
    """
    swept = _swept(candidates)
    by_task = _by_task(candidates, swept)
    several = dict.fromkeys(value for values in by_task.values() if len(values) > 1 for value in values)
    for chosen in several or [()]:
        members = [
            each
            for values in by_task.values()
            for each in (next(iter(values.values())) if len(values) == 1 else values.get(chosen, ()))
        ]
        settings = dict(members[0].shared) | dict(zip(swept, chosen, strict=True))
        runs = [each.run for each in members]
        yield Group(settings, _attempts(runs), runs)


def _swept(candidates: Sequence[Candidate]) -> list[str]:
    """Settings of a task that have several values within one."""
    known: dict[str, dict[frozenset[tuple[str, str]], Settings]] = defaultdict(dict)
    for each in candidates:
        known[each.run.task][frozenset(each.own.items())] = each.own
    found: set[str] = set()
    for different in known.values():
        settings = list(different.values())
        paths = {path for own in settings for path in own} if len(settings) > 1 else ()
        found |= {path for path in paths if len({own.get(path) for own in settings}) > 1}
    return sorted(found)


def _by_task(
    candidates: Sequence[Candidate], paths: Sequence[str]
) -> dict[str, dict[tuple[str, ...], list[Candidate]]]:
    """Candidates by task and by the values of settings."""
    found: dict[str, dict[tuple[str, ...], list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for each in candidates:
        found[each.run.task][tuple(each.settings.get(path, "-") for path in paths)].append(each)
    return found


def _attempts(runs: Sequence[Run]) -> dict[tuple[str, int], Attempts]:
    by_seed: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in runs:
        by_seed[run.task, run.seed].append(run)
    return {key: attempts(of_seed)[0] for key, of_seed in by_seed.items()}
