"""Reports as numbers, and their division into files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from qexp.records.record import Record
from qexp.reporting.attempts import runs_of
from qexp.reporting.comparison import Comparison, compare
from qexp.reporting.engines import EngineRow, engine_rows
from qexp.reporting.glue import Average, Convention, averages
from qexp.reporting.overview import Overview, overviews
from qexp.reporting.published import Choice, Published, chosen
from qexp.reporting.relative_loss import Loss, PublishedLoss, losses, published_losses
from qexp.reporting.run_view import RunView
from qexp.reporting.tables.intervals import Intervals
from qexp.reporting.verdict.verdict import Verdict, verdicts_of

AVERAGES_FILE, OVERVIEW_FILE, LOSSES_FILE = "glue-averages", "overview", "relative-loss"
INTERVALS_FILE, ENGINES_FILE, VERDICT_FILE = "intervals", "engines", "verdict"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Numbers of all tables of a report; each part may be empty."""

    verdicts: Sequence[Verdict] = ()
    """Verdict on each comparison."""
    comparisons: Sequence[Comparison] = ()
    overviews: Sequence[Overview] = ()
    losses: Sequence[Loss] = ()
    averages: Sequence[Average] = ()
    """Averages over GLUE; empty if only some tasks are included."""
    published: Sequence[Published] = ()
    """Published rows to show beside the overviews."""
    published_losses: Sequence[PublishedLoss] = ()
    intervals: Intervals | None = None
    """None unless requested."""
    engines: Sequence[EngineRow] = ()
    """Engines in every runtime, of all runs that built any."""
    outputs: Path | None = None
    """Folder that the runs wrote to, for the paths of files; None names files within it."""

    def parts(self) -> dict[str, Report]:
        """Return the content of each file by its name without suffix, in the order of the whole report."""
        reports = (
            {VERDICT_FILE: Report(verdicts=self.verdicts, outputs=self.outputs)} if self.verdicts else {}
        )
        for task in dict.fromkeys(comparison.task for comparison in self.comparisons):
            of_task = [comparison for comparison in self.comparisons if comparison.task == task]
            reports[quote(task, safe="")] = Report(comparisons=of_task)
        if self.overviews:
            reports[OVERVIEW_FILE] = Report(overviews=self.overviews, published=self.published)
        if self.losses:
            reports[LOSSES_FILE] = Report(losses=self.losses, published_losses=self.published_losses)
        if self.engines:
            reports[ENGINES_FILE] = Report(engines=self.engines)
        if self.intervals:
            reports[INTERVALS_FILE] = Report(intervals=self.intervals)
        if self.averages:
            reports[AVERAGES_FILE] = Report(averages=self.averages)
        return reports


def report_of(
    records: Iterable[Record | RunView],
    convention: Convention,
    beside: Choice = "family",
    tasks: Sequence[str] | None = None,
    *,
    accepted: float | None = None,
) -> Report:
    """Build the report on Records.

    Args:
        records: Records of all runs.
        convention: Convention that defines the metrics of GLUE's tasks in the overview.
        beside: Which published rows to show.
        tasks: Tasks to include, all if None; a selection of tasks has no average.
        accepted: Points of the main score that may be lost; None takes what each run accepts.

    Raises:
        DataError: If a file of published numbers is malformed.
    """
    runs = [run for run in runs_of(records) if not tasks or run.task in tasks]
    comparisons, published = compare(runs), chosen(beside, _models(runs))
    if tasks:
        published = [row for row in published if set(tasks) & set(row.scores)]
    glue_averages = (
        [] if tasks else averages(runs)
    )  # if none has all of its tasks, the overview lists what is missing
    return Report(
        verdicts=verdicts_of(comparisons, accepted),
        comparisons=comparisons,
        overviews=overviews(runs, convention, averaged=not tasks),
        losses=losses(comparisons),
        averages=glue_averages if any(each.has_numbers for each in glue_averages) else [],
        published=published,
        published_losses=published_losses(published),
        engines=engine_rows(runs),
    )


def _models(runs: Iterable[RunView]) -> list[str]:
    """Return the models with full budgets on real rows; published numbers are shown beside these only."""
    return list(
        dict.fromkeys(run.model for run in runs if run.budget == "full" and run.is_synthetic is False)
    )
