"""Tables as LaTeX with booktabs: ``\\usepackage{booktabs}`` is all that it asks for."""

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
"""Characters that mean something to LaTeX, or that its default fonts lack."""
_NUMBER = re.compile(r"[-+\d(.]|undefined|missing|failed|simulated|$")


def latex(table: Table) -> str:
    """A ``table`` environment: caption, tabular with rules, then the notes; published rows below a rule."""
    ours = len(table.rows) - table.foreign
    rows = [_row(row) for row in table.rows]
    body = [*rows[:ours], *([r"\midrule"] if 0 < ours < len(rows) else []), *rows[ours:]]
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
    """Plain text for LaTeX; breaks of lines become spaces, and dashes of options stay two."""
    plain = " ".join(text.split())
    parts = (ESCAPES.get(part, part) for part in re.split(r"(--|.)", plain) if part)
    return "".join(parts)


def _row(cells: Sequence[str]) -> str:
    # A cell that begins with a bracket would be read as the optional argument of the \\ before it.
    shielded = (f"{{}}{cell}" if cell.startswith(("[", "*")) else cell for cell in map(escaped, cells))
    return " & ".join(shielded) + r" \\"


def _columns(table: Table) -> str:
    """Columns that begin with a number stand to the right."""
    return "".join(
        "r" if all(_NUMBER.match(cell) for cell in column) else "l"
        for column in zip(*table.rows, strict=True)
    )


def _bold(text: str) -> str:
    r"""``**words**`` as ``\textbf{words}``."""
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", text)
