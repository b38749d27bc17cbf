"""All tasks side by side, as the AIMET model zoo prints them: rows FP32, W8A8, W4A8, …, columns tasks.

A row is one stage: FP32 scores of all runs that share their fine-tuning are one row, and so are PTQ scores of
all runs that share their calibration, whatever was trained afterwards. Sample rows and small budgets have
tables of their own, as everywhere; only full budgets on real rows have an average.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qexp.records.record import Record
from qexp.reporting.attempts import runs_of
from qexp.reporting.comparison import Cell, budget_order, by_data, order_of
from qexp.reporting.glue import FEWEST_TASKS, Convention, average_cell
from qexp.reporting.groups import Candidate, Group, grouped
from qexp.reporting.run_view import (
    DISTILLATION,
    FLOAT_BITS,
    INTEGER_KERNEL_BITS,
    OF_QUANTIZATION,
    TORCH_STAGES,
    TRAINED,
    Run,
)
from qexp.reporting.settings import ABSENT, Split, split_settings

TASK_ORDER = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
"""Columns of GLUE, as AIMET has them."""
SHORT = {"exact_match": "EM", "f1": "F1"}
"""Metrics of answers, as papers print them."""
_ALWAYS_OUT = ("method.kind", "budget.")
_OUT = {
    "fp32": (*_ALWAYS_OUT, *OF_QUANTIZATION, "method."),
    "control": (*_ALWAYS_OUT, *OF_QUANTIZATION),
    "ptq": (*_ALWAYS_OUT, "method."),
    "qat": _ALWAYS_OUT,
}
"""Beginnings of settings that a stage does not depend on."""
UNQUANTIZED = ("fp32", "control")


@dataclass(frozen=True)
class Column:
    """One number of a task: the mean of some of its scores."""

    title: str
    task: str
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class OverviewRow:
    """One stage of runs of the same model, bit-widths and settings."""

    model: str
    quant: str
    bits: tuple[int, int]
    stage: str
    settings: Mapping[str, str]
    cells: tuple[Cell, ...]
    """By column."""
    average: Cell | None
    """Of the tables that have one; what it lacks is told with the averages (:mod:`qexp.reporting.glue`)."""
    disagreeing: tuple[str, ...]
    """Where runs that share the row have different scores, of which the newest is shown."""
    doubtful: tuple[bool, ...] = ()
    """By column: whether a score of it says nothing of its model."""

    @property
    def taught(self) -> bool:
        """Whether the stage was trained with a teacher."""
        return self.settings.get(DISTILLATION, ABSENT) != ABSENT

    @property
    def simulated(self) -> bool:
        """Whether a bit-width is below what an integer kernel computes with."""
        return min(self.bits) < INTEGER_KERNEL_BITS


@dataclass(frozen=True)
class Overview:
    """One table, still in numbers."""

    family: str
    """``GLUE``, ``questions``, ``translation`` or ``other tasks``."""
    made_up: bool
    budget: str
    convention: Convention | None
    """Which metric stands for a task of GLUE."""
    averaged: bool
    """Whether the rows have averages over all tasks of the convention."""
    columns: tuple[Column, ...]
    split: Split
    rows: tuple[OverviewRow, ...]

    def settings_of(self, row: OverviewRow) -> list[str | None]:
        """The row's settings that have a column; None where a setting is not one of its stage."""
        return [row.settings.get(path) for path in self.split.columns]


def overviews(
    records: Iterable[Record | Run], convention: Convention, *, averaged: bool = True
) -> list[Overview]:
    """One overview for each family of tasks, kind of data and budget.

    Args:
        records: Of all runs.
        convention: Which metric stands for a task of GLUE, and what the average is.
        averaged: Whether there is to be one at all.
    """
    found: dict[tuple[bool, str, str], list[Run]] = defaultdict(list)
    for (_, made_up, budget), runs in by_data(runs_of(records)).items():
        for run in runs:
            if not run.refused:
                found[made_up, budget, _family(run, convention)].append(run)
    return [_overview(*key, found[key], convention, averaged) for key in sorted(found, key=_table_order)]


FAMILIES = ("GLUE", "questions", "translation", "other tasks")
_OF_KIND = {"question_answering": "questions", "translation": "translation"}


def _family(run: Run, convention: Convention) -> str:
    return "GLUE" if run.task in convention.metrics else _OF_KIND.get(run.find("task.kind"), "other tasks")


def _table_order(key: tuple[bool, str, str]) -> tuple[bool, int, str, int]:
    made_up, budget, family = key
    return made_up, *budget_order(budget), FAMILIES.index(family)


def _overview(
    made_up: bool, budget: str, family: str, runs: Sequence[Run], convention: Convention, averaged: bool
) -> Overview:
    of_glue = convention if family == "GLUE" else None
    columns = tuple(_columns(runs, of_glue))
    several = len({run.task for run in runs}) >= FEWEST_TASKS
    averaged = averaged and of_glue is not None and budget == "full" and not made_up and several
    rows = [
        _row(group, stage, columns, convention if averaged else None)
        for stage in TORCH_STAGES
        for group in grouped(_candidates(runs, stage))
    ]
    split = split_settings(_filled(rows))
    rows.sort(key=lambda row: _order(row, split))
    return Overview(family, made_up, budget, of_glue, averaged, columns, split, tuple(rows))


def _order(row: OverviewRow, split: Split) -> tuple[object, ...]:
    settings = tuple(row.settings.get(path, "") for path in split.columns)
    return *order_of(row.model, row.bits), settings, TORCH_STAGES.index(row.stage)


def _candidates(runs: Sequence[Run], stage: str) -> Iterator[Candidate]:
    """Runs that promise the stage, with the settings that it depends on."""
    no_teacher = {DISTILLATION: ABSENT} if stage in TRAINED else {}
    for run in runs:
        if stage in run.stages:
            own = {path: value for path, value in run.settings.items() if not path.startswith(_OUT[stage])}
            yield Candidate(run, "fp32" if stage in UNQUANTIZED else run.quant, no_teacher | own)


def _row(group: Group, stage: str, columns: Sequence[Column], convention: Convention | None) -> OverviewRow:
    run = group.example
    return OverviewRow(
        model=run.model,
        quant="fp32" if stage in UNQUANTIZED else run.quant,
        bits=(FLOAT_BITS, FLOAT_BITS) if stage in UNQUANTIZED else run.bits,
        stage=stage,
        settings=group.settings,
        cells=tuple(group.cell(each.task, stage, each.metrics) for each in columns),
        average=average_cell(group, convention, stage) if convention else None,
        disagreeing=tuple(group.disagreeing(stage)),
        doubtful=tuple(_doubtful(group, stage, each) for each in columns),
    )


def _doubtful(group: Group, stage: str, column: Column) -> bool:
    runs = (run for run in group.members if run.task == column.task)
    return any(run.caveat(stage, metric) for run in runs for metric in column.metrics)


def _filled(rows: Sequence[OverviewRow]) -> list[dict[str, str]]:
    """Settings of each row; one that a stage does not have is no difference where the others agree on it."""
    values: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for path, value in row.settings.items():
            values[path].add(value)
    agreed = {path: next(iter(of_path)) for path, of_path in values.items() if len(of_path) == 1}
    return [{**agreed, "model": row.model, "quant": row.quant, **row.settings} for row in rows]


def _columns(runs: Sequence[Run], convention: Convention | None) -> Iterator[Column]:
    if convention:
        tasks = {run.task for run in runs}
        yield from (Column(task, task, convention.metrics[task]) for task in TASK_ORDER if task in tasks)
        return
    known = {(run.task, metric): run for run in runs for metric in _headline(run)}
    for task, metric in sorted(known, key=lambda key: key[0]):
        name, _, split = metric.partition("@")
        words = (task, SHORT.get(name, name), split)
        yield Column(" ".join(word for word in words if word), task, (metric,))


def _headline(run: Run) -> list[str]:
    """Scores of a task that papers print: both of answers, else the primary one."""
    if run.find("task.kind") == "question_answering":
        return sorted(metric for metric in run.metrics if metric.partition("@")[0] in SHORT)
    return list(run.metrics[:1])
