"""Tables and verdicts on a terminal, fitted to its width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qexp.records.record import Record
from qexp.reporting.fit import GAP, fitted
from qexp.reporting.overview import overviews_of_sweep
from qexp.reporting.report import Report
from qexp.reporting.run_view import RunView
from qexp.reporting.table import DAGGER, DOUBLE_DAGGER, Table
from qexp.reporting.tables.overview import overview_table
from qexp.reporting.tables.run import run_tables
from qexp.reporting.verdict.next_steps import next_steps
from qexp.reporting.verdict.sentences import file_of, sentences
from qexp.reporting.verdict.verdict import Verdict, verdicts

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WARNED = ("missing", "undefined", "noisy", "simulated")


def print_run(record: Record, outputs: Path | None = None, *, verdict: bool = True) -> None:
    """Print the tables of a run, and the verdict on it.

    Args:
        record: Record of the run.
        outputs: Folder that it wrote to, for the path of its file.
        verdict: Whether to print the verdict; a sweep has one over all of its runs.
    """
    from rich.console import Console

    console = Console()
    tables = run_tables(record)
    for number, table in enumerate(tables):
        show(table, console, titled=number == 0)
    if verdict:
        show_verdicts(verdicts([RunView(record)]), console, outputs)


def print_sweep(records: Sequence[Record], outputs: Path | None = None) -> None:
    """Print one table of a sweep, rows by bit-widths and columns by task, and the verdict on each task."""
    from rich.console import Console

    console, runs = Console(), [RunView(record) for record in records]
    for overview in overviews_of_sweep(runs):
        show(overview_table(overview), console)
    show_verdicts(verdicts(runs), console, outputs)


def print_report(report: Report) -> None:
    """Print the verdicts and all tables of a report."""
    from rich.console import Console

    from qexp.reporting.formats import tables_of

    console = Console()
    show_verdicts(report.verdicts, console, report.outputs)
    for table in tables_of(report):
        show(table, console)


def show(table: Table, console: Console, *, titled: bool = True) -> None:
    """Print a table with its caption and notes, in as many parts as the width asks for."""
    if titled:
        write(console, table.title, style="bold")
    for part in fitted(table, console.width):
        for line in part.caption:
            write(console, line.replace("**", ""))
        if part.rows:
            console.print(_rich(part))
        for note in part.notes:
            write(console, note)
    console.print()


def show_verdicts(found: Iterable[Verdict], console: Console, outputs: Path | None = None) -> None:
    """Print the sentences of verdicts, and unwrapped the path of the file and the next commands."""
    for verdict in found:
        first, *others = sentences(verdict)
        write(console, f"Verdict. {first}", style="bold")
        for line in others:
            write(console, line)
        if verdict.answer == "deployable" and verdict.best and (file := file_of(verdict.best, outputs)):
            write(console, f"file: {file}", wrapped=False)
        for number, step in enumerate(next_steps(verdict)):
            write(
                console,
                f"{'next: ' if number == 0 else '      '}{step.command}  # {step.purpose}",
                wrapped=False,
            )
        console.print()


def write(console: Console, line: str, style: str = "", *, wrapped: bool = True) -> None:
    """Print plain text; words, such as paths, are never broken."""
    from rich.text import Text

    wrap = textwrap.TextWrapper(console.width, break_long_words=False, break_on_hyphens=False)
    for part in wrap.wrap(line) if wrapped else [line]:
        console.print(Text(part, style=style), soft_wrap=True)


def _rich(table: Table) -> RenderableType:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    view = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
    for name in table.columns:
        view.add_column(Text(name), no_wrap=True)
    for row in table.rows:
        view.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return view


def _style(cell: str) -> str:
    if cell.startswith("failed") or cell.endswith(DAGGER):
        return "red"
    warned = cell.endswith(DOUBLE_DAGGER) or cell in WARNED or cell.startswith("interrupted")
    return "yellow" if warned else ""
