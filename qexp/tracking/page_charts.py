"""Charts of the HTML page, of one run or of many, as pictures and tables of a tracker."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from statistics import mean, stdev

import numpy as np

from qexp.records.record import Record
from qexp.reporting.charts.comparison import (
    colours_of,
    last_stage,
    latency_chart,
    names_of,
    seed_chart,
    size_chart,
)
from qexp.reporting.charts.files import png_of
from qexp.reporting.charts.gate_distribution import distribution_chart
from qexp.reporting.charts.loss_map import loss_map
from qexp.reporting.charts.outliers import outliers_chart
from qexp.reporting.charts.run import ShownRun, layers_chart
from qexp.reporting.charts.spec import Chart, XYChart
from qexp.reporting.charts.vega import data_of
from qexp.reporting.comparison import Comparison, compare
from qexp.reporting.run_view import Quantity, RunView
from qexp.reporting.tables.comparison import title
from qexp.tracking.tracker import Cell, CellTable, PageContent, Picture

OF_RUN = {"layers": layers_chart, "outliers": outliers_chart, "gate/distribution": distribution_chart}
"""Charts of a run by the name of their picture."""
SEED_COLUMNS = (
    *("task", "model", "stage", "metric", "seeds"),
    *("mean", "standard deviation", "lowest", "highest"),
)


def charts_of_run(record: Record) -> dict[str, Chart]:
    """Return the charts of a run that its Record has numbers for."""
    run = RunView(record)
    chosen = ShownRun(run, f"{run.task} {run.quant} seed {run.seed}")
    return {name: chart for name, draw in OF_RUN.items() if (chart := draw(chosen))}


def charts_of_all(comparisons: Iterable[Comparison]) -> dict[str, Chart]:
    """Return the charts over many runs: loss against latency and size, by task and width, and by seed."""
    comparisons = list(comparisons)
    colours = colours_of(comparisons)
    found: dict[str, Chart | None] = {}
    for each in comparisons:
        task = re.sub(r"[^\w.-]+", "-", title(each))
        found |= {
            f"loss_against_latency/{task}": latency_chart(each, colours),
            f"loss_against_size/{task}": size_chart(each, colours),
            f"seeds/{task}": seed_chart(each),
        }
    found["loss_by_task_and_width"] = loss_map(comparisons)
    return {name: chart for name, chart in found.items() if chart}


def pictures_of(charts: Mapping[str, Chart]) -> dict[str, Picture]:
    """Draw charts as the page does, by the name of the picture."""
    return {f"pictures/{name}": _pixels(png_of(chart)) for name, chart in charts.items()}


def content_of_all(records: Iterable[Record]) -> tuple[PageContent, dict[str, Picture]]:
    """Return the tables and scatter plots over all runs, and the pictures of their charts."""
    records = list(records)
    comparisons = compare(records)
    charts = charts_of_all(comparisons)
    tables = {name: _table(chart) for name, chart in charts.items()}
    if rows := tuple(row for each in comparisons for row in _seed_rows(each)):
        tables["seeds"] = CellTable(SEED_COLUMNS, rows)
    scatters = {
        name: (chart.x.label, chart.y.label) for name, chart in charts.items() if isinstance(chart, XYChart)
    }
    content = PageContent("ok", {"runs": len(records)}, tables=tables, scatters=scatters)
    return content, pictures_of(charts)


def _table(chart: Chart) -> CellTable:
    """Return the numbers of a chart, of a scatter plot without the line of its Pareto front."""
    data = data_of(chart)
    series = chart.series if isinstance(chart, XYChart) else ()
    fronts = {each.name for each in series if each.form == "front"}
    rows = tuple(row for row in data.rows if row[0] not in fronts)
    return CellTable(tuple(column.title for column in data.columns), rows)


def _seed_rows(comparison: Comparison) -> Iterator[tuple[Cell, ...]]:
    """Yield mean and spread of the main score of each row with several seeds."""
    names, metric = names_of(comparison), (comparison.metrics or ("",))[0]
    for row in comparison.rows:
        stage = last_stage(row)
        cell = row.cells.get(Quantity("score", stage, metric))
        if cell and len(numbers := cell.numbers) > 1:
            spread = mean(numbers), stdev(numbers), numbers[0], numbers[-1]
            yield title(comparison), names[id(row)], stage, metric, len(numbers), *spread


def _pixels(png: bytes) -> Picture:
    from matplotlib.image import imread

    pixels = imread(BytesIO(png), format="png")
    return (255 * pixels[:, :, :3]).round().astype(np.uint8)
