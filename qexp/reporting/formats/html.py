"""Report as one self-contained HTML page, without network access or other files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

from qexp.records.record import Record
from qexp.reporting.attempts import describe, first_line
from qexp.reporting.charts.galleries import Measured, galleries
from qexp.reporting.charts.spec import Chart, Gallery
from qexp.reporting.charts.svg import legend, svg
from qexp.reporting.comparison import Comparison
from qexp.reporting.formats.html_table import html_table
from qexp.reporting.run_view import RunView
from qexp.reporting.table import Table
from qexp.reporting.tables.comparison import table_of

ASSETS = Path(__file__).parent.parent / "assets"
MOST_FAILURES = 200
"""Maximum number of failed runs in the table; the newest come first."""
TITLE = "qexp report"
ONE = "python -m qexp task=mrpc quant=w8a8"
MANY = "python -m qexp -m task=cola,mrpc,rte quant=fp32,w8a8"


def page(
    comparisons: Sequence[Comparison],
    records: Sequence[Record],
    overviews: Sequence[Table] = (),
    *,
    measured: Measured | None = None,
    unreadable: int = 0,
    now: datetime | None = None,
) -> str:
    """Return the page as text.

    Args:
        comparisons: Comparisons to show as tables and charts.
        records: Records to count in the header.
        overviews: Tables over several tasks, such as averages; they come first.
        measured: Measured sensitivities of runs, where there are any.
        unreadable: Number of Records that could not be read.
        now: Time of writing; None is the current time.
    """
    sections = [
        _section(
            "Overview",
            map(html_table, overviews),
            "None of these combinations was run on several tasks.",
            MANY,
        ),
        _section("Tables", (html_table(table_of(each)) for each in comparisons), "There are no runs.", ONE),
        *map(_gallery, galleries(comparisons, measured)),
        _section("Failed runs", _failures(comparisons), "No run failed."),
    ]
    links = "".join(f'<a href="#{_place(name)}">{escape(name)}</a>' for name, _ in sections)
    return Template(_asset("page.html")).substitute(
        title=escape(TITLE),
        style=_asset("page.css"),
        script=_asset("page.js"),
        facts=_facts(records, unreadable, now or datetime.now(UTC)),
        links=links,
        sections="\n".join(text for _, text in sections),
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _place(name: str) -> str:
    return name.lower().replace(" ", "-")


def _section(name: str, parts: Iterable[str], empty: str, command: str = "") -> tuple[str, str]:
    """Return the name and HTML of a section; an empty one has the reason and the command that fills it."""
    fill = f" Fill it with</p><pre>{escape(command)}</pre>" if command else "</p>"
    inner = "\n".join(parts) or f'<p class="empty">{escape(empty)}{fill}'
    return name, f'<section id="{_place(name)}">\n<h2>{escape(name)}</h2>\n{inner}\n</section>'


def _gallery(gallery: Gallery) -> tuple[str, str]:
    if not gallery.charts:
        return _section(gallery.title, [], gallery.empty, gallery.command)
    parts = [f'<p class="caption">{escape(gallery.lead)}</p>']
    if gallery.one_by_one and len(gallery.charts) > 1:
        parts.append(_choice(gallery))
    kind = "single" if gallery.one_by_one else "several"
    figures = "\n".join(
        _figure(chart, hidden=gallery.one_by_one and index > 0) for index, chart in enumerate(gallery.charts)
    )
    parts += [f'<div class="{kind}">\n{figures}\n</div>']
    parts += [f'<p class="notes">{escape(note)}</p>' for note in gallery.notes]
    return _section(gallery.title, parts, gallery.empty)


def _choice(gallery: Gallery) -> str:
    options = "".join(f"<option>{escape(chart.group)}</option>" for chart in gallery.charts)
    return f'<label class="choice">Show <select>{options}</select></label>'


def _figure(chart: Chart, *, hidden: bool) -> str:
    notes = "".join(f'<p class="notes">{escape(note)}</p>' for note in chart.notes)
    return "\n".join(
        [
            f'<figure data-group="{escape(chart.group)}"{" hidden" * hidden}>',
            f"<figcaption>{escape(chart.title)}</figcaption>",
            legend(chart),
            f'<div class="drawing">{svg(chart)}</div>',
            f'{notes}<output class="read"></output>',
            "</figure>",
        ]
    )


def _facts(records: Sequence[Record], unreadable: int, now: datetime) -> str:
    """Return the time of writing, the numbers of runs and the versions as HTML."""
    count = Counter(record.status for record in records)
    marks = Counter(mark for record in records for mark in _marks(RunView(record)))
    runs = [f"{count['ok']} ok", f"{count['failed']} failed"]
    runs += [f"{number} {mark}" for mark, number in sorted(marks.items())]
    runs += [f"{unreadable} unreadable, left out"] if unreadable else []
    facts = {
        "written": now.strftime("%Y-%m-%d %H:%M UTC"),
        "runs": f"{len(records)}: {', '.join(runs)}",
        "last run": max((record.finished for record in records), default="none")[:16].replace("T", " "),
        "versions": _versions(records),
    }
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())


def _marks(run: RunView) -> list[str]:
    budget = [] if run.budget == "full" else [f"of budget {run.budget}"]
    return [*(["on sample rows"] if run.is_synthetic else []), *budget]


def _versions(records: Sequence[Record]) -> str:
    """Return versions such as ``qexp 0.1.0, torch 2.13.0``, up to three of a package, most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for name, version in record.versions.items():
            counts.setdefault(name, Counter())[version] += 1
    order = sorted(counts, key=lambda name: (name != "qexp", name))
    return ", ".join(
        f"{name} {' and '.join(version for version, _ in counts[name].most_common(3))}" for name in order
    )


def _failures(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a table of the failed runs that no success supersedes, or nothing."""
    rows_of = (row for comparison in comparisons for row in comparison.rows)
    all_runs = [run for row in rows_of for run in row.runs]
    all_runs += [run for comparison in comparisons for run in comparison.refused]
    failed = [run for run in all_runs if run.record.status == "failed"]
    runs = sorted(failed, key=lambda run: run.record.finished_at, reverse=True)
    rows = tuple(
        (run.task, describe(run), first_line(run), run.record.finished[:16].replace("T", " "), run.record.key)
        for run in runs[:MOST_FAILURES]
    )
    left = len(runs) - len(rows)
    notes = (f"Left out: {left} older failures.",) if left else ()
    table = Table("Failed runs", ("task", "run", "error", "finished", "key"), rows, notes=notes)
    return [html_table(table).split("\n", 1)[1]] if rows else []
