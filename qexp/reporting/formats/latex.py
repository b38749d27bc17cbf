r"""Tables as LaTeX that needs only ``\usepackage{booktabs}``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qexp.reporting.table import Table

ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_",
    "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "†": r"\textdagger{}",
    "…": r"\ldots{}", "±": r"\ensuremath{\pm}", "→": r"\ensuremath{\rightarrow}", "\u2013": "--",
    "--": "-{}-",
}  # fmt: skip
"""Replacements of characters that are special in LaTeX or missing from its default fonts."""
_NUMBER = re.compile(r"[-+\d(.]|undefined|missing|failed|interrupted|simulated|$")


def latex(table: Table) -> str:
    """Return a ``table`` environment: caption, tabular with rules, notes; published rows follow a rule."""
    own = len(table.rows) - table.foreign
    rows = [_row(row) for row in table.rows]
    body = [*rows[:own], *([r"\midrule"] if 0 < own < len(rows) else []), *rows[own:]]
    tabular = [
        rf"\begin{{tabular}}{{{_columns(table)}}}",
        r"\toprule",
        _row(table.columns),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    notes = [rf"\par\footnotesize {escaped(line)}" for line in table.notes]
    caption = " ".join([f"{table.title}.", *table.caption])
    lines = [
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{_bold(escaped(caption))}}}",
        *(tabular if table.rows else []),
        *notes,
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Escape plain text for LaTeX; line breaks become spaces, and ``--`` of options stays two dashes."""
    plain = " ".join(text.split())
    parts = (ESCAPES.get(part, part) for part in re.split(r"(--|.)", plain) if part)
    return "".join(parts)


def _row(cells: Sequence[str]) -> str:
    # A cell that begins with a bracket would be read as the optional argument of the \\ before it.
    shielded = (f"{{}}{cell}" if cell.startswith(("[", "*")) else cell for cell in map(escaped, cells))
    return " & ".join(shielded) + r" \\"


def _columns(table: Table) -> str:
    """Return the column specification; columns whose cells all begin with a number are right-aligned."""
    return "".join(
        "r" if all(_NUMBER.match(cell) for cell in column) else "l"
        for column in zip(*table.rows, strict=True)
    )


def _bold(text: str) -> str:
    r"""Convert ``**text**`` to ``\textbf{text}``."""
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", text)
