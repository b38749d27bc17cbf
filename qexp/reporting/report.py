"""All that a report has to say, still in numbers, and its parts that are files of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from qexp.records.record import Record
from qexp.reporting.attempts import runs_of
from qexp.reporting.comparison import Comparison, compare
from qexp.reporting.engines import EngineRow, engine_rows
from qexp.reporting.glue import Average, Convention, averages
from qexp.reporting.overview import Overview, overviews
from qexp.reporting.published import Choice, Published, chosen
from qexp.reporting.relative_loss import Loss, PublishedLoss, losses, published_losses
from qexp.reporting.run_view import Run
from qexp.reporting.tables.intervals import Intervals

AVERAGES_FILE, OVERVIEW_FILE, LOSSES_FILE = "glue-averages", "overview", "relative-loss"
INTERVALS_FILE, ENGINES_FILE = "intervals", "engines"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Numbers of all tables; each part may be empty."""

    comparisons: Sequence[Comparison] = ()
    overviews: Sequence[Overview] = ()
    losses: Sequence[Loss] = ()
    averages: Sequence[Average] = ()
    """Over GLUE; none where only some tasks are wanted."""
    published: Sequence[Published] = ()
    """What stands beside our overviews."""
    published_losses: Sequence[PublishedLoss] = ()
    intervals: Intervals | None = None
    """Only where they were asked for."""
    engines: Sequence[EngineRow] = ()
    """Engines in every runtime, of all runs that made some."""

    def parts(self) -> dict[str, Report]:
        """What goes into each file, by its name without an ending, in the order of the whole report."""
        found: dict[str, Report] = {}
        for task in dict.fromkeys(comparison.task for comparison in self.comparisons):
            of_task = [comparison for comparison in self.comparisons if comparison.task == task]
            found[quote(task, safe="")] = Report(comparisons=of_task)
        if self.overviews:
            found[OVERVIEW_FILE] = Report(overviews=self.overviews, published=self.published)
        if self.losses:
            found[LOSSES_FILE] = Report(losses=self.losses, published_losses=self.published_losses)
        if self.engines:
            found[ENGINES_FILE] = Report(engines=self.engines)
        if self.intervals:
            found[INTERVALS_FILE] = Report(intervals=self.intervals)
        if self.averages:
            found[AVERAGES_FILE] = Report(averages=self.averages)
        return found


def report_of(
    records: Iterable[Record | Run],
    convention: Convention,
    beside: Choice = "family",
    tasks: Sequence[str] | None = None,
) -> Report:
    """The report on Records.

    Args:
        records: Of all runs.
        convention: Of the metrics that stand for GLUE's tasks in the overview.
        beside: Which published rows to show.
        tasks: Those that are wanted, all if None; some alone have no average.

    Raises:
        DataError: a file of published numbers is not of its form.
    """
    runs = [run for run in runs_of(records) if not tasks or run.task in tasks]
    comparisons, published = compare(runs), chosen(beside, _models(runs))
    if tasks:
        published = [row for row in published if set(tasks) & set(row.scores)]
    found = [] if tasks else averages(runs)  # where none has all of its tasks, the overview says so
    return Report(
        comparisons=comparisons,
        overviews=overviews(runs, convention, averaged=not tasks),
        losses=losses(comparisons),
        averages=found if any(each.has_numbers for each in found) else [],
        published=published,
        published_losses=published_losses(published),
        engines=engine_rows(runs),
    )


def _models(runs: Iterable[Run]) -> list[str]:
    """Models with full budgets on real rows, which alone have published numbers beside them."""
    return list(dict.fromkeys(run.model for run in runs if run.budget == "full" and run.made_up is False))
