"""Final table of one run, and display of tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qexp.records.record import Record
from qexp.records.schema import ParityResult
from qexp.reporting import table as text
from qexp.reporting.attempts import first_line, short_name
from qexp.reporting.run_view import STAGES_OF_METHOD, Quantity, RunView
from qexp.reporting.table import DAGGER, DOUBLE_DAGGER, NOT_REQUESTED, Table
from qexp.reporting.tables.comparison import (
    STAGES,
    WARNINGS,
    caveat_notes,
    noise_note,
    parity_facts,
    parity_note,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

FACTS = ("task", "data", "model", "quant", "metric")
COSTS = ("size (MiB)", "latency (ms)")
"""Columns that compare FP32 -> INT8; latency is the p50 of batch 1."""
_STACKED = (("task", "data"), ("model", "quant"))
_SAME_FOR_RUN = frozenset({"task", "data", "model", "quant", "size (MiB)", "latency (ms)"})


def final_table(record: Record) -> Table:
    """Return the table of one run, with one line for each metric, the primary one first."""
    run = RunView(record)
    first = (run.task, _data(run), short_name(run.model), run.quant)
    costs = (_size(run), _latency(run))
    stages = _stages(run)
    columns = (*FACTS, *(STAGES[stage] for stage in stages), f"{STAGES[stages[-1]]}-FP32", *COSTS)
    rows = tuple(
        (*first, metric, *_scores(run, metric), *costs) for metric in run.metrics or (NOT_REQUESTED,)
    )
    return Table(f"{run.task} {short_name(run.model)} {run.quant}", columns, rows, notes=_notes(run))


def rich_table(table: Table, width: int) -> RenderableType:
    """Return the table for a terminal of ``width`` columns; cells of a table that is too wide are stacked."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = _quiet(table)
    if _width(shown) > width:
        shown = _stacked(shown)
    view = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in shown.columns:
        view.add_column(Text(name), overflow="fold", vertical="top")
    for row in shown.rows:
        view.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return view


def print_run(record: Record) -> None:
    """Print the final table of a run on the terminal."""
    show(final_table(record))


def show(table: Table, console: Console | None = None) -> None:
    """Print a table and its notes on a terminal."""
    from rich.console import Console as RichConsole
    from rich.text import Text

    console = console or RichConsole()
    console.print(rich_table(table, console.width))
    for note in table.notes:
        console.print(Text(note))


def _data(run: RunView) -> str:
    marks = [run.source or NOT_REQUESTED] + [run.budget] * (run.budget != "full")
    return " ".join(marks)


def _stages(run: RunView) -> Sequence[str]:
    return STAGES_OF_METHOD["control" if run.method == "control" else "qat"]


def _scores(run: RunView, metric: str) -> list[str]:
    stages = _stages(run)
    cells = [_number(run, Quantity("score", stage, metric)) for stage in stages]
    return [*cells, _number(run, Quantity("difference", f"{stages[-1]}-fp32", metric))]


def _number(run: RunView, quantity: Quantity) -> str:
    if quantity not in run.measured:
        return _absent(run, quantity)
    printed = text.points if quantity.name == "difference" else text.score
    parity = run.record.parity
    broken = quantity.name == "score" and quantity.stage == run.stages[-1] and parity and not parity["passed"]
    doubtful = quantity.name == "score" and run.caveat(quantity.stage, quantity.metric)
    mark = f" {DOUBLE_DAGGER}" if doubtful else ""
    return printed(run.measured[quantity]) + mark + (f" {DAGGER}" if broken else "")


def _absent(run: RunView, *quantities: Quantity) -> str:
    if run.promised.isdisjoint(quantities):
        return NOT_REQUESTED
    return "failed" if run.record.status == "failed" else "missing"


def _size(run: RunView) -> str:
    graphs = Quantity("size", "fp32"), Quantity("size", "int8")
    shown = text.size(*map(run.measured.get, graphs))
    return _absent(run, *graphs) if shown == NOT_REQUESTED else shown


def _latency(run: RunView) -> str:
    graphs = Quantity("latency", "fp32", "p50_ms", "1"), Quantity("latency", "int8", "p50_ms", "1")
    shown = text.latency(*map(run.measured.get, graphs))
    shown = _absent(run, *graphs) if shown == NOT_REQUESTED else shown
    if not run.simulated:
        return shown
    return "simulated" if shown == NOT_REQUESTED else f"{shown} simulated"


def _notes(run: RunView) -> tuple[str, ...]:
    marks = (["sample"] if run.is_synthetic else []) + [run.budget]
    notes = [WARNINGS[mark] for mark in marks if mark in WARNINGS]
    if run.record.status == "failed":
        notes.append(f"failed: {first_line(run)}")
    notes += caveat_notes([run], named=False)
    parity = run.record.parity
    if parity:
        notes.append(_gate_note(run, parity))
    return tuple(notes)


def _gate_note(run: RunView, parity: ParityResult) -> str:
    if not parity["passed"]:
        return parity_note(run)
    if parity.get("verdict") == "within noise":
        return noise_note(parity)
    last = run.metrics and run.caveat("onnx", run.metrics[0])
    doubt = f" {DOUBLE_DAGGER} This says as little as the score: {last}." if last else ""
    return f"The exported graph reproduces the score: {parity_facts(parity)}.{doubt}"


def _quiet(table: Table) -> Table:
    """Blank the cells that every line of the run repeats."""
    blank = [name in _SAME_FOR_RUN for name in table.columns]
    rows = [
        tuple("" if index and same else cell for cell, same in zip(row, blank, strict=True))
        for index, row in enumerate(table.rows)
    ]
    return replace(table, rows=tuple(rows))


def _stacked(table: Table) -> Table:
    """Stack task over data and model over quant, and break each pair of numbers into two lines."""
    pairs = [(table.columns.index(high), table.columns.index(low)) for high, low in _STACKED]
    lower = {low: high for high, low in pairs}
    upper = dict(pairs)

    def stack(row: Sequence[str]) -> tuple[str, ...]:
        kept = (index for index in range(len(row)) if index not in lower)
        return tuple(_two_lines(row, index, upper.get(index)) for index in kept)

    return replace(table, columns=stack(table.columns), rows=tuple(map(stack, table.rows)))


def _two_lines(row: Sequence[str], index: int, below: int | None) -> str:
    if below is not None:
        return "\n".join(part for part in (row[index], row[below].replace(" ", "\n")) if part)
    for mark, broken in (
        (" -> ", " ->\n"),
        (" (", "\n("),
        ("QAT-FP32", "QAT\n-FP32"),
        ("control-FP32", "control\n-FP32"),
        ("@", "\n@"),
    ):
        row = [*row[:index], row[index].replace(mark, broken), *row[index + 1 :]]
    return row[index].replace(" simulated", "\nsimulated")


def _width(table: Table) -> int:
    columns = zip(table.columns, *table.rows, strict=True)
    return sum(max(map(len, column)) + 2 for column in columns)


def _style(cell: str) -> str:
    if cell.startswith("failed") or cell.endswith(DAGGER):
        return "red"
    if cell.endswith(DOUBLE_DAGGER):
        return "yellow"
    return "yellow" if "sample" in cell or "smoke" in cell or cell in ("missing", "undefined") else ""
