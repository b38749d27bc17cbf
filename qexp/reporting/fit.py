"""Fitting of tables into the columns of a terminal: names shortened in the middle, then columns divided."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from qexp.reporting.table import Table

GAP = 2
"""Blanks between columns."""
SHORTEST = 12
"""Characters that a shortened name keeps, if there is any room."""
ELLIPSIS = "…"


def shortened(name: str, width: int) -> str:
    """Return a name of at most ``width`` characters, with an ellipsis in its middle if it is longer."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}{ELLIPSIS}{name[len(name) - tail :] if tail else ''}"


def width_of(table: Table) -> int:
    """Return the width of a table without shortening."""
    return sum(_widths(table)) + GAP * (len(table.columns) - 1)


def fitted(table: Table, width: int) -> list[Table]:
    """Return tables that hold the columns of one and are at most ``width`` wide.

    In this order, until it fits: names that all rows share go into the caption, texts of the column
    ``table.prose`` become numbered notes, units of headings go into the caption if that is enough, names are
    shortened, and the other columns are divided among several tables that repeat the names. Captions stand
    above the first part and notes below the last.
    """
    for narrower in (_without_shared_names, _with_short_prose, _with_units_above, _with_short_names):
        if width_of(table) <= width:
            return [table]
        table = narrower(table, width)
    parts = list(_divided(table, width))
    bare = [replace(part, caption=(), notes=()) for part in parts]
    bare[0] = replace(bare[0], caption=table.caption)
    bare[-1] = replace(bare[-1], notes=table.notes)
    return bare


def _widths(table: Table) -> list[int]:
    return [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]


def _without_shared_names(table: Table, width: int) -> Table:
    """Move names that are equal in all rows into the caption, except the last name."""
    columns = list(zip(*table.rows, strict=True))
    shared = [index for index in range(table.labels - 1) if len({*columns[index]}) == 1] if columns else []
    if not shared:
        return table
    kept = [index for index in range(len(table.columns)) if index not in shared]
    facts = ", ".join(f"{table.columns[index]} {columns[index][0]}" for index in shared)
    return replace(
        _selected(table, kept),
        labels=table.labels - len(shared),
        caption=(*table.caption, f"All rows: {facts}."),
    )


def _selected(table: Table, columns: Sequence[int]) -> Table:
    def row_of(row: Sequence[str]) -> tuple[str, ...]:
        return tuple(row[index] for index in columns)

    return replace(table, columns=row_of(table.columns), rows=tuple(map(row_of, table.rows)))


def _with_short_prose(table: Table, width: int) -> Table:
    """Move the texts of the column of prose into numbered notes."""
    if table.prose not in table.columns:
        return table
    index = table.columns.index(table.prose)
    numbers = {text: f"[{number}]" for number, text in enumerate(_texts(table, index), 1)}
    rows = tuple((*row[:index], numbers.get(row[index], ""), *row[index + 1 :]) for row in table.rows)
    notes = (*(f"{number} {text}" for text, number in numbers.items()), *table.notes)
    return replace(table, rows=rows, notes=notes)


def _texts(table: Table, index: int) -> list[str]:
    return [*dict.fromkeys(row[index] for row in table.rows if row[index])]


def _with_units_above(table: Table, width: int) -> Table:
    """Move the units of headings, such as ``p50 (ms)``, into the caption if the table then fits."""
    found = [re.fullmatch(r"(.+) \((.+)\)", name) for name in table.columns]
    units = [f"{each[1]} in {each[2]}" for each in found[table.labels :] if each]
    columns = tuple(
        each[1] if each and index >= table.labels else name
        for index, (name, each) in enumerate(zip(table.columns, found, strict=True))
    )
    narrow = replace(table, columns=columns, caption=(*table.caption, f"Units: {', '.join(units)}."))
    return narrow if width_of(narrow) <= width else table


def _with_short_names(table: Table, width: int) -> Table:
    """Shorten names, the widest first, until all fits; else until the widest other column does."""
    widths, names = _widths(table), table.labels
    others, gaps = sum(widths[names:]), GAP * (len(widths) - 1)
    lowered = _lowered(widths[:names], width - others - gaps, SHORTEST)
    if sum(lowered) > width - others - gaps:  # it has to be divided
        table = _numbered(table)
        widths, names = _widths(table), table.labels
        available = width - max(widths[names:], default=0) - GAP * names
        lowered = _lowered(widths[:names], available, SHORTEST)
        if sum(lowered) > available:
            lowered = _lowered(widths[:names], width // 2, 1)
    for index, own in enumerate(lowered):
        table = _shortened_column(table, index, own)
    return table


def _lowered(widths: Sequence[int], available: int, shortest: int) -> list[int]:
    lowered = list(widths)
    while sum(lowered) > available and max(lowered) > shortest:
        lowered[lowered.index(max(lowered))] -= 1
    return lowered


def _numbered(table: Table) -> Table:
    """Number the rows if their names do not tell them apart."""
    names = {row[: table.labels] for row in table.rows}
    if len(names) == len(table.rows):
        return table
    rows = tuple((str(number), *row) for number, row in enumerate(table.rows, 1))
    return replace(table, columns=("#", *table.columns), rows=rows, labels=table.labels + 1)


def _shortened_column(table: Table, index: int, width: int) -> Table:
    def row_of(row: Sequence[str]) -> tuple[str, ...]:
        return (*row[:index], shortened(row[index], width), *row[index + 1 :])

    return replace(table, columns=row_of(table.columns), rows=tuple(map(row_of, table.rows)))


def _divided(table: Table, width: int) -> Iterator[Table]:
    """Yield parts with as many of the other columns as fit beside the names, at least one each."""
    widths, names = _widths(table), table.labels
    used = sum(widths[:names]) + GAP * (names - 1)
    start = names
    while start < len(widths):
        end, taken = start, used
        while end < len(widths) and (end == start or taken + GAP + widths[end] <= width):
            taken += GAP + widths[end]
            end += 1
        part = _selected(table, [*range(names), *range(start, end)])
        yield part if taken <= width else _shortened_column(part, names, width - used - GAP)
        start = end
