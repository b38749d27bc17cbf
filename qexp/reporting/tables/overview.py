"""Tables of overviews, with published rows below the rows of Records."""

from __future__ import annotations

from collections.abc import Sequence

from qexp.reporting.overview import TASK_ORDER, Overview, OverviewRow
from qexp.reporting.published import Published, shown_average, shown_score, source_notes
from qexp.reporting.settings import ABSENT, label
from qexp.reporting.table import NOT_REQUESTED, Table, joined
from qexp.reporting.tables.comparison import STAGES, WARNINGS, doubt_notes, marked, model_names
from qexp.reporting.tables.footnotes import Footnotes
from qexp.reporting.tables.glue import spread, spread_or_why


def overview_table(overview: Overview, published: Sequence[Published] = ()) -> Table:
    """Return the table of an overview; published rows come last and enter no number computed from Records."""
    names, footnotes = model_names(row.model for row in overview.rows), Footnotes()
    header = ["model", "quant", "method", *map(label, overview.split.columns)]
    header += [column.title for column in overview.columns]
    if overview.averaged and overview.convention:
        header.append(f"GLUE ({overview.convention.name})")
    own_rows = [_own_row(overview, row, names[row.model], footnotes) for row in overview.rows]
    matches = matching_published_rows(overview, published)
    published_rows = [_published_row(overview, row) for row in matches]
    notes = [*footnotes.lines(), *_lacking(overview), *_disagreeing(overview, names)]
    notes += [*doubt_notes(own_rows), *overview.split.follows, *source_notes(matches)]
    rows = tuple(map(tuple, [*own_rows, *published_rows]))
    return Table(
        title(overview),
        tuple(header),
        rows=rows,
        caption=_caption(overview, bool(matches)),
        notes=tuple(notes),
        labels=3,
        foreign=len(published_rows),
    )


def title(overview: Overview) -> str:
    """Return a title such as ``overview: GLUE``, with ``sample``, ``smoke`` or ``limited`` if so."""
    marks = ["sample"] * overview.is_synthetic + [overview.budget] * (overview.budget != "full")
    return ", ".join((f"overview: {overview.family}", *marks))


def matching_published_rows(overview: Overview, published: Sequence[Published]) -> list[Published]:
    """Return the published rows with a number for the table; none for sample rows or small budgets."""
    if overview.is_synthetic or overview.budget != "full":
        return []
    columns = overview.columns
    return [
        row
        for row in published
        if any(column.task in row.scores for column in columns) or (overview.averaged and row.average)
    ]


def _own_row(overview: Overview, row: OverviewRow, name: str, footnotes: Footnotes) -> list[str]:
    settings = (ABSENT if value is None else value for value in overview.settings_of(row))
    doubtful = row.doubtful or (False,) * len(row.cells)
    cells = [
        marked(spread_or_why(cell, footnotes), doubt) for cell, doubt in zip(row.cells, doubtful, strict=True)
    ]
    averages = [marked(spread(row.average), any(doubtful))] if row.average else []
    return [name, row.quant, _method(row), *settings, *cells, *averages]


def _method(row: OverviewRow) -> str:
    """Return the title of the stage, such as ``QAT``, or ``QAT + KD`` with a teacher."""
    if row.stage == "fp32":
        return NOT_REQUESTED
    return f"{STAGES[row.stage]}{' + KD' if row.distilled else ''}"


def _published_row(overview: Overview, row: Published) -> list[str]:
    method = NOT_REQUESTED if row.method == "none" else STAGES.get(row.method, row.method)
    settings = [ABSENT] * len(overview.split.columns)
    cells = [shown_score(row, column.task, column.metrics) for column in overview.columns]
    if overview.averaged and overview.convention:
        cells.append(shown_average(row, overview.convention))
    return [f"published: {row.label}", row.quant, method, *settings, *cells]


def _lacking(overview: Overview) -> list[str]:
    """Return a note on tasks of the convention without Records, which prevent an average."""
    available = {column.task for column in overview.columns}
    needed = overview.convention.metrics if overview.convention else {}
    absent = [task for task in TASK_ORDER if task in needed and task not in available]
    return [f"no average: no Records of {joined(absent)}"] if overview.averaged and absent else []


def _disagreeing(overview: Overview, names: dict[str, str]) -> list[str]:
    """Return notes on rows whose runs differ in scores that should be equal, as on other devices or data."""
    return [
        f"{names[row.model]} {row.quant} {STAGES[row.stage]}: runs have different scores of "
        f"{joined(row.disagreeing[:3])}{', …' if row.disagreeing[3:] else ''}; the newest is shown"
        for row in overview.rows
        if row.disagreeing
    ]


def _caption(overview: Overview, with_published: bool) -> tuple[str, ...]:
    marks = ["sample"] * overview.is_synthetic + [overview.budget]
    warnings = [f"**{WARNINGS[mark]}**" for mark in marks if mark in WARNINGS]
    reading = "Percent: median over the seeds, and (smallest..largest) where there are several."
    if overview.convention:
        metrics = ", ".join(f"{column.task} {' and '.join(column.metrics)}" for column in overview.columns)
        reading += f" Metrics by the convention {overview.convention.name}: {metrics}."
    reading += " A row is one stage: FP32 and PTQ scores are shared by all runs that go on from them."
    if any(row.stage == "control" for row in overview.rows):
        reading += " control: the FP32 model, trained on without quantizers."
    if any(row.distilled for row in overview.rows):
        reading += " KD: the FP32 model was the teacher of this training."
    if with_published:
        reading += (
            " Rows marked published are others' numbers, in none of ours; a number of another metric or "
            "convention than its column has that in brackets."
        )
    return (*warnings, reading)
