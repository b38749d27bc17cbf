"""Tables as HTML that sorts by a click on a header."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from qexp.reporting.table import Table

MOST_ROWS = 1000
"""Maximum number of rows of a table on a page."""
LONG = 60
"""Number of characters above which a cell is broken into lines."""
MOST_NOTES = 8
"""Number of notes above which they are folded."""
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")
_LAST = re.compile(r"-> ([+-]?\d+(?:\.\d+)?)")
_BAD = ("failed", "missing", "undefined")


def html_table(table: Table, level: int = 3) -> str:
    """Format heading, caption, rows and notes as HTML, with all text escaped."""
    parts = [f"<h{level}>{escape(table.title)}</h{level}>", *map(_paragraph, table.caption)]
    if table.rows:
        head = "".join(
            f'<th scope="col" aria-sort="none"><button type="button">{escape(name)}</button></th>'
            for name in table.columns
        )
        rows = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows[:MOST_ROWS])
        label = escape(f"Table {table.title}")
        parts += [
            f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">',
            f'<table class="sortable"><thead><tr>{head}</tr></thead>',
            f"<tbody>\n{rows}\n</tbody></table></div>",
        ]
    if (left := len(table.rows) - MOST_ROWS) > 0:
        parts.append(f'<p class="notes">Left out here: the last {left} rows of {len(table.rows)}.</p>')
    return "\n".join([*parts, _notes(table.notes)])


def _notes(notes: Sequence[str]) -> str:
    items = f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'
    if len(notes) > MOST_NOTES:
        return f'<details><summary class="notes">{len(notes)} notes</summary>{items}</details>'
    return items if notes else ""


def sort_number(cell: str) -> float | None:
    """Return the sort key of a cell: its first number, or the second of ``FP32 -> INT8``; None for text."""
    match = _LAST.search(cell) or _NUMBER.match(cell)
    return float(match[match.lastindex or 0]) if match else None


def _cell(text: str) -> str:
    number = sort_number(text)
    kinds = ["bad"] * (text.startswith(_BAD) or ": seed" in text) + ["long"] * (len(text) > LONG)
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    sort = f' data-n="{number!r}"' if number is not None else ""
    return f"<td{sort}{kind}>{escape(text)}</td>"


def _paragraph(text: str) -> str:
    """Format a line of a caption; a line that is bold in Markdown is a warning."""
    if text.startswith("**") and text.endswith("**"):
        return f'<p class="warning">{escape(text.strip("*"))}</p>'
    return f'<p class="caption">{escape(text)}</p>'
