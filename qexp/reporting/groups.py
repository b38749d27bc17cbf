"""Groups of runs of several tasks that belong to one row, with the same model, bit-widths and settings.

Only the settings in :data:`OF_A_TASK` may differ between the tasks of a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import fmean

from qexp.reporting.attempts import RunsForSeed, attempts
from qexp.reporting.comparison import Cell
from qexp.reporting.run_view import Quantity, RunView

OF_A_TASK = (
    *("finetune.learning_rate", "finetune.epochs", "finetune.batch_size", "finetune.weight_decay"),
    *("finetune.batch_tokens", "finetune.max_steps", "finetune.warmup_steps"),
    *("finetune.warmup", "method.learning_rate", "method.range_learning_rate", "method.epochs"),
    *("machine.accelerator", "machine.devices", "machine.accumulate", "machine.compile", "machine.kernels"),
)
"""Settings that may differ between the tasks of one row, in addition to ``task.*``: duration and rates of the
training, and the machine."""

DIGITS = 6
"""Decimal places to which scores of one artifact agree."""

Settings = Mapping[str, str]


@dataclass(frozen=True)
class Candidate:
    """A run with the settings that distinguish its row from others."""

    run: RunView
    quant: str
    settings: Settings

    @cached_property
    def own(self) -> Settings:
        """Settings that may depend on the task."""
        return {path: value for path, value in self.settings.items() if of_a_task(path)}

    @cached_property
    def shared(self) -> frozenset[tuple[str, str]]:
        """Settings that all tasks of a row have to share."""
        return frozenset((path, value) for path, value in self.settings.items() if not of_a_task(path))


@dataclass(frozen=True)
class RunGroup:
    """Runs of one row, over its tasks and seeds."""

    settings: Settings
    runs: Mapping[tuple[str, int], RunsForSeed]
    """Runs by task and seed."""
    members: Sequence[RunView]

    @property
    def example(self) -> RunView:
        """One of the runs, for what all of them share."""
        return self.members[0]

    @cached_property
    def seeds(self) -> list[int]:
        """Union of the seeds of all tasks, ascending."""
        return sorted({seed for _, seed in self.runs})

    @property
    def tasks(self) -> set[str]:
        """Tasks with a run, even a failed one."""
        return {task for task, _ in self.runs}

    def disagreeing(self, stage: str) -> list[str]:
        """Return where runs should agree on the scores of a stage but do not, such as ``mrpc (seed 1)``."""
        scores_by_run: dict[tuple[str, int], set[tuple[tuple[str, float | None], ...]]] = defaultdict(set)
        for run in self.members:
            scores = run.record.scores.get(stage, {}) if run.record.status == "ok" else {}
            if scores:
                rounded = {name: value and round(value, DIGITS) for name, value in scores.items()}
                scores_by_run[run.task, run.seed].add(tuple(sorted(rounded.items())))
        return [
            f"{task} (seed {seed})"
            for (task, seed), variants in sorted(scores_by_run.items())
            if len(variants) > 1
        ]

    def cell(self, task: str, stage: str, metrics: Sequence[str]) -> Cell:
        """Return the mean of a task's metrics, over the seeds."""
        values: dict[int, float | None] = {}
        failed: dict[int, RunView] = {}
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
    """Return the mean, or None if a number is undefined."""
    defined = [number for number in numbers if number is not None]
    return fmean(defined) if len(defined) == len(numbers) else None


def grouped(candidates: Iterable[Candidate], fewest_tasks: int = 1) -> Iterator[RunGroup]:
    """Yield groups of runs.

    Args:
        candidates: Runs with the settings that distinguish their rows.
        fewest_tasks: Minimum number of tasks of a group, counted before it is divided into variants.
    """
    groups: dict[object, list[Candidate]] = defaultdict(list)
    for each in candidates:
        groups[each.run.model, each.quant, each.shared].append(each)
    for members in groups.values():
        if len({each.run.task for each in members}) >= fewest_tasks:
            yield from _variants(members)


@cache
def of_a_task(path: str) -> bool:
    """Return whether a setting may differ between the tasks of a row."""
    return path in OF_A_TASK or path.startswith("task.")


def _variants(candidates: Sequence[Candidate]) -> Iterator[RunGroup]:
    """Yield one group, or one for each value of the task settings that vary within a task.

    A task that was run with a single value belongs to all groups, because it has no other runs.
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
        yield RunGroup(settings, _attempts(runs), runs)


def _swept(candidates: Sequence[Candidate]) -> list[str]:
    """Return the task settings that have several values within one task."""
    settings_by_task: dict[str, dict[frozenset[tuple[str, str]], Settings]] = defaultdict(dict)
    for each in candidates:
        settings_by_task[each.run.task][frozenset(each.own.items())] = each.own
    swept: set[str] = set()
    for variants in settings_by_task.values():
        settings = list(variants.values())
        paths = {path for own in settings for path in own} if len(settings) > 1 else ()
        swept |= {path for path in paths if len({own.get(path) for own in settings}) > 1}
    return sorted(swept)


def _by_task(
    candidates: Sequence[Candidate], paths: Sequence[str]
) -> dict[str, dict[tuple[str, ...], list[Candidate]]]:
    """Group candidates by task and by their values of the settings."""
    groups: dict[str, dict[tuple[str, ...], list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for each in candidates:
        groups[each.run.task][tuple(each.settings.get(path, "-") for path in paths)].append(each)
    return groups


def _attempts(runs: Sequence[RunView]) -> dict[tuple[str, int], RunsForSeed]:
    by_seed: dict[tuple[str, int], list[RunView]] = defaultdict(list)
    for run in runs:
        by_seed[run.task, run.seed].append(run)
    return {key: attempts(of_seed)[0] for key, of_seed in by_seed.items()}
