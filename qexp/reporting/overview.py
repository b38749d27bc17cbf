"""Overviews of all tasks side by side, as in the AIMET model zoo: rows FP32, W8A8, W4A8, …, columns tasks.

A row is one stage. Runs that share their fine-tuning have one row of FP32 scores, and runs that share their
calibration have one row of PTQ scores, whatever was trained afterwards. Sample rows and small budgets have
tables of their own; only full budgets on real rows have an average.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qexp.naming import MODEL_STAGES, is_simulated
from qexp.records.record import Record
from qexp.reporting.attempts import runs_of
from qexp.reporting.comparison import Cell, budget_order, by_data, order_of
from qexp.reporting.glue import FEWEST_TASKS, Convention, average_cell
from qexp.reporting.groups import Candidate, RunGroup, grouped
from qexp.reporting.run_view import (
    DISTILLATION,
    FLOAT_BITS,
    OF_QUANTIZATION,
    TRAINED,
    RunView,
)
from qexp.reporting.settings import ABSENT, SettingsLayout, split_settings

TASK_ORDER = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
"""Columns of GLUE in the order of AIMET."""
SHORT = {"exact_match": "EM", "f1": "F1"}
"""Metrics of question answering, as papers print them."""
_ALWAYS_OUT = ("method.kind", "budget.")
_OUT = {
    "fp32": (*_ALWAYS_OUT, *OF_QUANTIZATION, "method."),
    "control": (*_ALWAYS_OUT, *OF_QUANTIZATION),
    "ptq": (*_ALWAYS_OUT, "method."),
    "qat": _ALWAYS_OUT,
}
"""Prefixes of the settings that a stage does not depend on."""
UNQUANTIZED = ("fp32", "control")


@dataclass(frozen=True)
class Column:
    """Column of an overview: the mean of some scores of a task."""

    title: str
    task: str
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class OverviewRow:
    """One stage of the runs with the same model, bit-widths and settings."""

    model: str
    quant: str
    bits: tuple[int, int]
    stage: str
    settings: Mapping[str, str]
    cells: tuple[Cell, ...]
    """Cells by column."""
    average: Cell | None
    """Average over the tasks; None in tables without one. The table of averages lists what it lacks
    (:mod:`qexp.reporting.glue`)."""
    disagreeing: tuple[str, ...]
    """Tasks and seeds whose runs have different scores, of which the newest is shown."""
    doubtful: tuple[bool, ...] = ()
    """Whether a score is uninformative about its model, by column."""

    @property
    def distilled(self) -> bool:
        """Whether the stage was trained with a teacher."""
        return self.settings.get(DISTILLATION, ABSENT) != ABSENT

    @property
    def simulated(self) -> bool:
        """Whether no engine of a CPU gains anything from the bit-widths."""
        return is_simulated(self.bits, self.quant)


@dataclass(frozen=True)
class Overview:
    """Numbers of one overview table."""

    family: str
    """``GLUE``, ``questions``, ``translation``, ``other tasks``, …, or ``sweep`` for all tasks of a sweep."""
    is_synthetic: bool
    budget: str
    convention: Convention | None
    """Convention that defines the metric of each task; None outside GLUE."""
    averaged: bool
    """Whether rows have an average over all tasks of the convention."""
    columns: tuple[Column, ...]
    split: SettingsLayout
    rows: tuple[OverviewRow, ...]

    def settings_of(self, row: OverviewRow) -> list[str | None]:
        """Return the row's values of the settings that have a column; None if its stage lacks the setting."""
        return [row.settings.get(path) for path in self.split.columns]


def overviews(
    records: Iterable[Record | RunView], convention: Convention, *, averaged: bool = True
) -> list[Overview]:
    """Return one overview for each family of tasks, kind of data and budget.

    Args:
        records: Records of all runs.
        convention: Metric of each GLUE task, and definition of the average.
        averaged: Whether overviews may have an average at all.
    """
    groups: dict[tuple[bool, str, str], list[RunView]] = defaultdict(list)
    for (_, is_synthetic, budget), runs in by_data(runs_of(records)).items():
        for run in runs:
            if not run.refused:
                groups[is_synthetic, budget, _family(run, convention)].append(run)
    return [
        _overview(*key, runs=groups[key], convention=convention, averaged=averaged)
        for key in sorted(groups, key=_table_order)
    ]


def overviews_of_sweep(records: Iterable[Record | RunView]) -> list[Overview]:
    """Return one overview of all tasks for each kind of data and budget, without an average."""
    groups: dict[tuple[bool, str], list[RunView]] = defaultdict(list)
    for (_, is_synthetic, budget), runs in by_data(runs_of(records)).items():
        groups[is_synthetic, budget] += [run for run in runs if not run.refused]
    return [
        _overview(*key, "sweep", runs=groups[key], convention=None, averaged=False)
        for key in sorted(groups, key=lambda key: (key[0], *budget_order(key[1])))
        if groups[key]
    ]


FAMILIES = ("GLUE", "questions", "translation", "embedding", "retrieval", "reranking", "other tasks")
_OF_KIND = {"question_answering": "questions"} | {
    kind: kind for kind in ("translation", "embedding", "retrieval", "reranking")
}


def _family(run: RunView, convention: Convention) -> str:
    return "GLUE" if run.task in convention.metrics else _OF_KIND.get(run.find("task.kind"), "other tasks")


def _table_order(key: tuple[bool, str, str]) -> tuple[bool, int, str, int]:
    is_synthetic, budget, family = key
    return is_synthetic, *budget_order(budget), FAMILIES.index(family)


def _overview(
    is_synthetic: bool,
    budget: str,
    family: str,
    *,
    runs: Sequence[RunView],
    convention: Convention | None,
    averaged: bool,
) -> Overview:
    of_glue = convention if family == "GLUE" else None
    columns = tuple(_columns(runs, of_glue))
    several = len({run.task for run in runs}) >= FEWEST_TASKS
    averaged = averaged and of_glue is not None and budget == "full" and not is_synthetic and several
    rows = [
        _row(group, stage, columns, convention if averaged else None)
        for stage in MODEL_STAGES
        for group in grouped(_candidates(runs, stage))
    ]
    split = split_settings(_filled(rows))
    rows.sort(key=lambda row: _order(row, split))
    return Overview(
        family,
        is_synthetic,
        budget=budget,
        convention=of_glue,
        averaged=averaged,
        columns=columns,
        split=split,
        rows=tuple(rows),
    )


def _order(row: OverviewRow, split: SettingsLayout) -> tuple[object, ...]:
    settings = tuple(row.settings.get(path, "") for path in split.columns)
    return *order_of(row.model, row.bits), settings, MODEL_STAGES.index(row.stage)


def _candidates(runs: Sequence[RunView], stage: str) -> Iterator[Candidate]:
    """Yield the runs that promise the stage, with the settings that it depends on."""
    no_teacher = {DISTILLATION: ABSENT} if stage in TRAINED else {}
    for run in runs:
        if stage in run.stages:
            own = {path: value for path, value in run.settings.items() if not path.startswith(_OUT[stage])}
            yield Candidate(run, "fp32" if stage in UNQUANTIZED else run.quant, no_teacher | own)


def _row(
    group: RunGroup, stage: str, columns: Sequence[Column], convention: Convention | None
) -> OverviewRow:
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


def _doubtful(group: RunGroup, stage: str, column: Column) -> bool:
    runs = (run for run in group.members if run.task == column.task)
    return any(run.caveat(stage, metric) for run in runs for metric in column.metrics)


def _filled(rows: Sequence[OverviewRow]) -> list[dict[str, str]]:
    """Return the settings of each row, with model and quant.

    A setting that a stage does not have is filled in if all other rows agree on it, so that it is no
    difference.
    """
    values: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for path, value in row.settings.items():
            values[path].add(value)
    agreed = {path: next(iter(of_path)) for path, of_path in values.items() if len(of_path) == 1}
    return [{**agreed, "model": row.model, "quant": row.quant, **row.settings} for row in rows]


def _columns(runs: Sequence[RunView], convention: Convention | None) -> Iterator[Column]:
    if convention:
        tasks = {run.task for run in runs}
        yield from (Column(task, task, convention.metrics[task]) for task in TASK_ORDER if task in tasks)
        return
    examples = {(run.task, metric): run for run in runs for metric in _headline(run)}
    for task, metric in sorted(examples, key=lambda key: key[0]):
        name, _, split = metric.partition("@")
        parts = (task, SHORT.get(name, name), split)
        yield Column(" ".join(part for part in parts if part), task, (metric,))


def _headline(run: RunView) -> list[str]:
    """Return the scores that papers print: exact match and F1 of answers, else the primary metric."""
    if run.find("task.kind") == "question_answering":
        return sorted(metric for metric in run.metrics if metric.partition("@")[0] in SHORT)
    return list(run.metrics[:1])
