"""Table of the averages over GLUE."""

from __future__ import annotations

from collections.abc import Sequence

from qexp.reporting.comparison import Cell
from qexp.reporting.glue import CONVENTIONS, Average, Convention
from qexp.reporting.settings import ABSENT, SettingsLayout, label, split_settings
from qexp.reporting.table import NOT_REQUESTED, Table, score
from qexp.reporting.tables.comparison import (
    STAGES,
    doubt_notes,
    marked,
    model_names,
    without_number,
)
from qexp.reporting.tables.footnotes import Footnotes

TITLE = "GLUE averages"


def columns_of(averages: Sequence[Average]) -> SettingsLayout:
    """Return the layout of the settings that distinguish the averages."""
    return split_settings([{"model": each.model, "quant": each.quant, **each.settings} for each in averages])


def averages_table(averages: Sequence[Average]) -> Table:
    """Return the table of averages, with one line for each combination and convention."""
    split, names = columns_of(averages), model_names(each.model for each in averages)
    stages = [stage for stage in STAGES if any(stage in each.cells for each in averages)]
    header = (
        "convention",
        "model",
        "quant",
        *map(label, split.columns),
        *(STAGES[stage] for stage in stages),
    )
    rows = tuple(
        (
            each.convention.name,
            names[each.model],
            each.quant,
            *(each.settings.get(path, ABSENT) for path in split.columns),
            *(marked(spread(each.cells.get(stage)), stage in each.doubtful) for stage in stages),
            "; ".join(each.gaps) or NOT_REQUESTED,
        )
        for each in averages
    )
    caption = (
        "Percent, of full budgets on real rows: the mean over the tasks of a convention for each seed, then "
        "the median over the seeds, and (smallest..largest) where there are several. A combination with "
        "runs of one task only is not listed.",
    )
    notes = (*doubt_notes(rows), *map(_explained, CONVENTIONS), *split.follows)
    return Table(TITLE, (*header, "lacks"), rows=rows, caption=caption, notes=notes, labels=3)


def spread(cell: Cell | None) -> str:
    """Format a median and its range, such as ``81.50 (81.00..82.00) n=2``, or the status without a number."""
    if cell is None or cell.median is None:
        return NOT_REQUESTED if cell is None else cell.status
    shown = score(cell.median)
    if len(cell.numbers) > 1:
        shown += f" ({score(cell.numbers[0])}..{score(cell.numbers[-1])})"
    return shown if cell.status == "ok" else f"{shown} n={len(cell.numbers)}"


def spread_or_why(cell: Cell | None, footnotes: Footnotes) -> str:
    """Format a cell like :func:`spread`, with a footnote for failed runs."""
    if cell is None or not cell.numbers:
        return without_number(cell, footnotes)
    return f"{spread(cell)}, {footnotes.mark(list(cell.failed.values()))}" if cell.failed else spread(cell)


def _explained(convention: Convention) -> str:
    """Return a note such as ``aimet: cola matthews, mrpc f1. From SOURCE``."""
    return f"{convention.name}: {convention.description()}. From {convention.source}."
