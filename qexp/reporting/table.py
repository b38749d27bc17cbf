"""Tables of plain strings, the format of their numbers, and their Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

NOT_REQUESTED = "-"
"""Cell of a number that the experiment does not produce."""
DAGGER = "†"  # the usual sign for "see the note on this number"
DOUBLE_DAGGER = "‡"
"""Mark of a score that is uninformative about the model; a note gives the reason."""
MEBIBYTE = 2**20
KEY_LENGTH = 8
"""Characters of a run's key in tables and commands; 6 are enough to name a run."""


@dataclass(frozen=True)
class Table:
    """Table of strings with its title, caption and notes."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: tuple[str, ...] = ()
    """Lines above the table, with what a reader must know first."""
    notes: tuple[str, ...] = ()
    """Lines below the table, footnotes first."""
    labels: int = 1
    """Number of leading columns that name a row, and are repeated where a table is divided."""
    prose: str = ""
    """Name of the column of reasons, which become numbered notes where the table is too wide."""
    foreign: int = 0
    """Number of published rows, which come last."""


def without_empty_columns(table: Table) -> Table:
    """Return a table without the columns in which every row has :data:`NOT_REQUESTED`."""
    cells = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    kept = [index for index, column in enumerate(cells) if not column or {*column} != {NOT_REQUESTED}]

    def row_of(row: Sequence[str]) -> tuple[str, ...]:
        return tuple(row[index] for index in kept)

    return replace(table, columns=row_of(table.columns), rows=tuple(map(row_of, table.rows)))


def markdown(table: Table) -> str:
    """Format a table as GitHub Markdown, padded so that it also reads well as plain text."""
    cells = [[_escaped(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    parts = [f"## {table.title}", *table.caption, *(["\n".join(lines)] if table.rows else [])]
    if table.notes:
        parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def score(value: float | None) -> str:
    """Format percent with two decimal places, or ``undefined``."""
    return "undefined" if value is None else f"{value:.2f}"


def points(value: float | None) -> str:
    """Format a signed difference with two decimal places, or ``undefined``."""
    return "undefined" if value is None else f"{round(value, 2) + 0.0:+.2f}"


def size(fp32: float | None, int8: float | None) -> str:
    """Format bytes as MiB: ``FP32 -> INT8 (how many times smaller)``."""
    return _pair(*(None if value is None else value / MEBIBYTE for value in (fp32, int8)))


def latency(fp32: float | None, int8: float | None) -> str:
    """Format milliseconds: ``FP32 -> INT8 (how many times faster)``."""
    return _pair(fp32, int8)


def _pair(fp32: float | None, int8: float | None) -> str:
    if int8 is None:
        return NOT_REQUESTED if fp32 is None else _short(fp32)
    if fp32 is None:
        return f"-> {_short(int8)}"
    ratio = f" ({fp32 / int8:.2f}x)" if int8 > 0 else ""
    return f"{_short(fp32)} -> {_short(int8)}{ratio}"


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def _escaped(cell: str) -> str:
    return " ".join(cell.split()).replace("|", "\\|")


def joined(values: Sequence[object]) -> str:
    """Join values with commas."""
    return ", ".join(map(str, values))
