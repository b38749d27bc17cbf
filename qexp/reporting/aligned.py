"""Tables of aligned columns without frames, which fit a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from qexp.reporting.fit import shortened

GAPS = (2, 1)
"""Spaces between columns, and where the table would be too wide."""
LEAST = 4
"""Characters that a shortened cell keeps."""


def aligned(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int, shorten: Sequence[str] = ()
) -> str:
    """Return the lines of a table that is at most ``width`` characters wide.

    Args:
        columns: Names of the columns; a column whose cells are all empty is left out.
        rows: Cells.
        width: Characters of a line.
        shorten: Columns whose cells may be shortened in the middle, the widest of them first.
    """
    used = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    names = [columns[place] for place in used]
    cells = [names, *([row[place] for place in used] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    may = [place for place, name in enumerate(names) if name in shorten]
    wide, narrow = GAPS
    gap = wide if sum(widths) + wide * (len(widths) - 1) <= width else narrow
    while sum(widths) + gap * (len(widths) - 1) > width:
        widest = max(may, key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= LEAST:
            break
        widths[widest] -= 1
    numbers = [_are_numbers([row[place] for row in cells[1:]]) for place in range(len(names))]
    return "".join(f"{(' ' * gap).join(_padded(row, widths, numbers)).rstrip()}\n" for row in cells)


def _padded(row: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> list[str]:
    cells = [shortened(cell, width) for cell, width in zip(row, widths, strict=True)]
    return [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numbers, strict=True)
    ]


def _are_numbers(cells: Collection[str]) -> bool:
    return all(cell.lstrip("+-").replace(".", "", 1).isdigit() for cell in cells if cell not in ("", "-"))
