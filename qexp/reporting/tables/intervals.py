"""Tables of intervals of differences to FP32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from qexp.reporting.settings import label
from qexp.reporting.table import Table, points
from qexp.reporting.tables.comparison import STAGES, doubt_notes, marked, model_names, title

if TYPE_CHECKING:  # needs numpy and pyarrow, which only a report with intervals imports
    from qexp.reporting.intervals import Interval, NoInterval


@dataclass(frozen=True)
class Intervals:
    """Computed intervals, and the stages without one."""

    found: Sequence[Interval]
    lacking: Sequence[NoInterval]
    resamples: int


def interval_tables(intervals: Intervals) -> list[Table]:
    """Return a table for each comparison that has a quantized stage with scores."""
    all_comparisons = [each.comparison for each in intervals.found] + [
        each.comparison for each in intervals.lacking
    ]
    comparisons = {id(comparison): comparison for comparison in all_comparisons}
    return [
        _table(
            [each for each in intervals.found if each.comparison is comparison],
            [each for each in intervals.lacking if each.comparison is comparison],
            intervals.resamples,
        )
        for comparison in comparisons.values()
    ]


def _table(found: Sequence[Interval], lacking: Sequence[NoInterval], resamples: int) -> Table:
    comparison = (found or lacking)[0].comparison
    names = model_names(row.model for row in comparison.rows)
    header = ("metric", "model", "quant", *map(label, comparison.split.columns), "stage", "seeds", "rows")
    rows = tuple(
        (
            each.metric,
            names[each.row.model],
            each.row.quant,
            *comparison.columns_of(each.row),
            STAGES[each.stage],
            str(len(each.seeds)),
            str(each.rows),
            marked(
                points(each.points), any(each.row.is_doubtful(of, each.metric) for of in (each.stage, "fp32"))
            ),
            "undefined" if each.low is None else f"{points(each.low)} to {points(each.high)}",
        )
        for each in found
    )
    caption = (
        f"Points above FP32: median over the seeds, and 2.5 and 97.5 percentiles of {resamples} resamples of "
        "evaluation rows and of seeds, drawn independently. With one seed the interval covers the choice of "
        "rows alone.",
    )
    undefined = [
        f"{each.metric} {names[each.row.model]} {each.row.quant} {STAGES[each.stage]}: undefined in "
        f"{each.undefined} of {resamples} resamples, which are left out"
        for each in found
        if each.undefined
    ]
    absent = [
        f"no interval for {names[each.row.model]} {each.row.quant} {STAGES[each.stage]}: {each.reason}"
        for each, *_ in (list(same) for _, same in groupby(lacking, key=lambda each: each.reason))
    ]
    columns = (*header, "difference", "95 % interval")
    return Table(
        f"intervals: {title(comparison)}",
        columns,
        rows=rows,
        caption=caption,
        notes=(*doubt_notes(rows), *undefined, *absent),
        labels=3,
    )
