"""One HTML page of the verdicts, all tables and all charts, which opens from disk and loads nothing.

Jinja2 fills ``assets/page.html`` with the macros of ``assets/parts.html``, and Vega-Lite draws the charts in
the browser. The page has the libraries inside (:func:`vl_convert.javascript_bundle`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from vl_convert import javascript_bundle

from qexp.records.outcome import outcome
from qexp.records.record import Record
from qexp.reporting.charts.galleries import Measured, galleries
from qexp.reporting.charts.spec import Chart, Gallery
from qexp.reporting.charts.vega import ChartData, data_of, height_of, specification
from qexp.reporting.comparison import Comparison
from qexp.reporting.run_view import RunView
from qexp.reporting.table import Table, without_empty_columns
from qexp.reporting.tables.comparison import table_of
from qexp.reporting.tables.runs import failures_table, runs_table
from qexp.reporting.verdict.next_steps import next_steps
from qexp.reporting.verdict.sentences import file_of, headline, sentences
from qexp.reporting.verdict.verdict import Verdict

ASSETS = Path(__file__).parent.parent / "assets"
MOST_ROWS = 1000
"""Maximum number of rows of a table on a page."""
LONG = 60
"""Number of characters above which a cell is broken into lines."""
MOST_NOTES = 8
"""Number of notes above which they are folded."""
TITLE = "qexp report"
ONE = "python -m qexp task=mrpc quant=w8a8"
MANY = "python -m qexp -m task=cola,mrpc,rte quant=fp32,w8a8"
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")
_LAST = re.compile(r"-> ([+-]?\d+(?:\.\d+)?)")
_BAD = ("failed", "missing")
"""Beginnings of cells in red. An undefined number is no fault."""


@dataclass(frozen=True)
class Figure:
    """A chart on the page: the number of its specification, its height, and the table of its data."""

    chart: Chart
    specification: int
    height: int
    data: ChartData


@dataclass(frozen=True)
class PageSection:
    """Part of the page: tables, or charts, or why there are none and which command makes some."""

    title: str
    tables: Sequence[Table] = ()
    gallery: Gallery | None = None
    figures: Sequence[Figure] = ()
    empty: str = ""
    command: str = ""
    folded: bool = False

    @property
    def place(self) -> str:
        """Anchor of the section."""
        return self.title.lower().replace(" ", "-")


def page(
    comparisons: Sequence[Comparison],
    records: Sequence[Record],
    overviews: Sequence[Table] = (),
    *,
    verdicts: Sequence[Verdict] = (),
    measured: Measured | None = None,
    outputs: Path | None = None,
    unreadable: int = 0,
    now: datetime | None = None,
) -> str:
    """Return the page as text.

    Args:
        comparisons: Comparisons to show as tables and charts.
        records: Records to list and to count in the header.
        overviews: Tables over several tasks, such as averages; they come first.
        verdicts: Verdicts on the comparisons.
        measured: Measured sensitivities of runs, where there are any.
        outputs: Folder that the runs wrote to, for the paths of files.
        unreadable: Number of Records that could not be read.
        now: Time of writing; None is the current time.
    """
    runs = [RunView(record) for record in records]
    failures, interrupted = (failures_table(comparisons, ended) for ended in ("failed", "interrupted"))
    specifications: list[str] = []
    sections = [
        PageSection(
            "Runs",
            _filled(without_empty_columns(runs_table(runs))),
            empty="No run has finished.",
            command=ONE,
        ),
        *(_charts(gallery, specifications) for gallery in galleries(comparisons, measured)),
        PageSection(
            "Overview", overviews, empty="None of these combinations was run on several tasks.", command=MANY
        ),
        PageSection("Tables", [*map(table_of, comparisons)], empty="There are no runs.", command=ONE),
        PageSection("Failed runs", _filled(failures), empty="No run failed.", folded=True),
        *([PageSection("Interrupted runs", [interrupted], folded=True)] if interrupted.rows else []),
    ]
    return (
        environment()
        .get_template("page.html")
        .render(
            title=TITLE,
            facts=_facts(runs, unreadable, now or datetime.now(UTC)),
            verdicts=verdicts,
            outputs=outputs,
            command=ONE,
            sections=sections,
            libraries=_libraries(),
            specifications=Markup(f"[{','.join(specifications)}]".replace("<", "\\u003c")),
        )
    )


def sort_number(cell: str) -> float | None:
    """Return the sort key of a cell: its first number, or the second of ``FP32 -> INT8``; None for text."""
    match = _LAST.search(cell) or _NUMBER.match(cell)
    return float(match[match.lastindex or 0]) if match else None


def _filled(table: Table) -> list[Table]:
    return [table] if table.rows else []


def _charts(gallery: Gallery, specifications: list[str]) -> PageSection:
    """Return the section of a gallery; new specifications of its charts are appended."""
    figures = []
    for chart in gallery.charts:
        text = json.dumps(specification(chart), allow_nan=False)
        if text not in specifications:
            specifications.append(text)
        figures.append(Figure(chart, specifications.index(text), height_of(chart), data_of(chart)))
    return PageSection(
        gallery.title, gallery=gallery, figures=figures, empty=gallery.empty, command=gallery.command
    )


@cache
def environment() -> Environment:
    """Return the templates, which escape every text."""
    templates = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions: Iterable[Callable[..., Any]] = (sort_number, headline, sentences, next_steps, file_of)
    templates.globals |= {function.__name__: function for function in functions}
    templates.globals |= {"LONG": LONG, "MOST_NOTES": MOST_NOTES, "BAD": _BAD, "most_rows": lambda: MOST_ROWS}
    templates.globals["asset"] = lambda name: Markup((ASSETS / name).read_text(encoding="utf-8"))
    templates.filters["number"] = lambda value: f"{value:.6g}" if isinstance(value, float | int) else value
    return templates


@cache
def _libraries() -> Markup:
    """Return Vega, Vega-Lite and Vega-Embed as one script; an element of the page cannot end in it."""
    script = javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return Markup(script.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def _facts(runs: Sequence[RunView], unreadable: int, now: datetime) -> dict[str, str]:
    """Return the time of writing, the numbers of runs and the versions."""
    count = Counter(outcome(run.record) for run in runs)
    marks = Counter(mark for run in runs for mark in _marks(run))
    numbers = [f"{count['ok']} ok", f"{count['failed']} failed"]
    numbers += [f"{count['interrupted']} interrupted"] if count["interrupted"] else []
    numbers += [f"{number} {mark}" for mark, number in sorted(marks.items())]
    numbers += [f"{unreadable} unreadable, left out"] if unreadable else []
    return {
        "written": now.strftime("%Y-%m-%d %H:%M UTC"),
        "runs": f"{len(runs)}: {', '.join(numbers)}",
        "last run": max((run.record.finished for run in runs), default="none")[:16].replace("T", " "),
        "versions": _versions(runs),
    }


def _marks(run: RunView) -> list[str]:
    budget = [] if run.budget == "full" else [f"of budget {run.budget}"]
    return [*(["on sample rows"] if run.is_synthetic else []), *budget]


def _versions(runs: Sequence[RunView]) -> str:
    """Return versions such as ``qexp 0.1.0, torch 2.13.0``, up to three of a package, most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        for name, version in run.record.versions.items():
            counts.setdefault(name, Counter())[version] += 1
    order = sorted(counts, key=lambda name: (name != "qexp", name))
    return ", ".join(
        f"{name} {' and '.join(version for version, _ in counts[name].most_common(3))}" for name in order
    )
