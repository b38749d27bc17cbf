"""Text formats of a whole report: Markdown, CSV, LaTeX and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from qexp.records.record import write_text
from qexp.reporting.engines import engine_tables
from qexp.reporting.formats.csv import csv_text
from qexp.reporting.formats.json import json_text
from qexp.reporting.formats.latex import latex
from qexp.reporting.report import Report
from qexp.reporting.table import Table, markdown
from qexp.reporting.tables.comparison import table_of
from qexp.reporting.tables.glue import averages_table
from qexp.reporting.tables.intervals import interval_tables
from qexp.reporting.tables.overview import overview_table
from qexp.reporting.tables.relative_loss import loss_tables
from qexp.reporting.verdict.next_steps import next_steps
from qexp.reporting.verdict.sentences import file_of, sentences
from qexp.reporting.verdict.verdict import Verdict


def tables_of(report: Report) -> list[Table]:
    """Return all tables in order: tasks, overviews, relative losses, engines, intervals and averages."""
    return [
        *map(table_of, report.comparisons),
        *(overview_table(overview, report.published) for overview in report.overviews),
        *loss_tables(report.losses, report.published_losses),
        *engine_tables(report.engines),
        *(interval_tables(report.intervals) if report.intervals else []),
        *([averages_table(report.averages)] if report.averages else []),
    ]


def markdown_text(report: Report) -> str:
    """Format the verdicts and all tables as one Markdown text."""
    return "\n".join([*verdict_markdown(report.verdicts, report.outputs), *map(markdown, tables_of(report))])


def verdict_markdown(verdicts: Sequence[Verdict], outputs: Path | None = None) -> list[str]:
    """Format verdicts as one section of Markdown; none without verdicts."""
    if not verdicts:
        return []
    paragraphs = ["## verdict"]
    for verdict in verdicts:
        first, *others = sentences(verdict)
        paragraphs.append(" ".join([f"**{first}**", *others]))
        steps = [f"- `{step.command}`: {step.purpose}" for step in next_steps(verdict)]
        file = file_of(verdict.best, outputs) if verdict.answer == "deployable" and verdict.best else None
        paragraphs.append("\n".join([*([f"- file: `{file}`"] if file else []), *steps]))
    return ["\n\n".join(paragraphs) + "\n"]


def latex_text(report: Report) -> str:
    """Format all tables as one LaTeX text."""
    return "\n".join(map(latex, tables_of(report)))


FORMATS: Mapping[str, tuple[str, Callable[[Report], str]]] = {
    "markdown": ("md", markdown_text),
    "csv": ("csv", csv_text),
    "latex": ("tex", latex_text),
    "json": ("json", json_text),
}
"""File suffix and formatter, by the name of the format."""


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Write each part of the report in every format, such as ``<task>.md``, ``.csv``, ``.tex`` and ``.json``.

    Returns:
        Paths of the files.

    Raises:
        StoreError: If the folder cannot be written.
    """
    paths = []
    for name, part in report.parts().items():
        for ending, text in FORMATS.values():
            paths.append(folder / f"{name}.{ending}")
            write_text(paths[-1], text(part))
    return paths
