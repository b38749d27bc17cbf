"""Reports as CSV, with one line for each row and quantity; numbers are not rounded."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from qexp.naming import is_simulated
from qexp.records.outcome import outcome
from qexp.reporting.attempts import first_line
from qexp.reporting.comparison import Cell, Comparison, Row
from qexp.reporting.costs import session_numbers
from qexp.reporting.glue import Average
from qexp.reporting.overview import Overview, OverviewRow
from qexp.reporting.published import Published
from qexp.reporting.relative_loss import Loss
from qexp.reporting.report import Report
from qexp.reporting.run_view import Quantity
from qexp.reporting.settings import SettingsLayout
from qexp.reporting.tables.glue import columns_of

if TYPE_CHECKING:
    from qexp.reporting.engines import EngineRow
    from qexp.reporting.intervals import Interval

ALWAYS = ("method.kind", "calibrator.kind", "placement.name")
"""Settings that have a column even if they do not differ."""
FACTS = ("task", "data", "budget", "model", "quant")
NUMBERS = (
    *("quantity", "stage", "metric", "batch", "unit", "status", "n", "median", "min", "max"),
    *("seeds", "failed_seeds", "missing_seeds", "undefined_seeds", "simulated", "parity", "error"),
    *("low", "high", "source", "mark", "caveat"),
)


def csv_text(report: Report) -> str:
    """Format a report as CSV with a header; columns of settings are named by their dotted paths.

    A relative loss is in percent of the FP32 score, and an interval is in points above FP32 with its ends in
    ``low`` and ``high``. Published numbers have their source and mark.
    """
    settings = dict.fromkeys((*ALWAYS, *(path for split in _splits(report) for path in split.columns)))
    file = io.StringIO()
    writer = csv.DictWriter(file, [*FACTS, *settings, *NUMBERS], lineterminator="\n")
    writer.writeheader()
    for comparison in report.comparisons:
        writer.writerows(_lines(comparison, settings))
    for overview in report.overviews:
        writer.writerows(_overview_lines(overview, settings))
    for row in report.published:
        writer.writerows(_published_lines(row))
    for loss in report.losses:
        writer.writerows(_loss_lines(loss, settings))
    for each in report.published_losses:
        of_loss = {"task": each.task, "metric": each.metric, "median": each.loss}
        writer.writerow(_of_published(each.row) | of_loss | {"quantity": "relative_loss"})
    for engine in report.engines:
        writer.writerows(_engine_lines(engine, settings))
    for interval in report.intervals.found if report.intervals else ():
        writer.writerow(_interval_line(interval, settings))
    for average in report.averages:
        writer.writerows(_average_lines(average, settings))
    return file.getvalue()


def _splits(report: Report) -> list[SettingsLayout]:
    """Return the layout of the settings of each table."""
    comparisons = [*report.comparisons, *(loss.comparison for loss in report.losses)]
    comparisons += [each.comparison for each in report.intervals.found] if report.intervals else []
    splits = [each.split for each in comparisons] + [each.split for each in report.overviews]
    return [*splits, columns_of(report.averages)]


def _lines(comparison: Comparison, settings: Iterable[str]) -> Iterator[Mapping[str, object]]:
    facts = _data_of(comparison)
    for row in comparison.rows:
        of_row = _of_row(row, settings)
        if any(of_seed.best and of_seed.best.record.parity for of_seed in row.by_seed.values()):
            of_row["parity"] = "passed"
        if row.broken_parity:
            of_row["parity"] = "failed"
        for quantity, cell in row.cells.items():
            if cell.values or cell.failed or cell.missing:
                yield {**facts, **of_row, **_numbers(quantity, cell), "caveat": _caveat(row, quantity)}
    for run in comparison.refused:
        of_run = {"model": run.model, "quant": run.quant, "quantity": "run", "failed_seeds": run.seed}
        yield {**facts, **of_run, "status": outcome(run.record), "n": 0, "error": first_line(run)}


def _caveat(row: Row, quantity: Quantity) -> str:
    """Return why a score says nothing of its model, over the runs of a row; empty for other quantities."""
    if quantity.name != "score":
        return ""
    reasons = (run.caveat(quantity.stage, quantity.metric) for run in row.runs)
    return "; ".join(dict.fromkeys(filter(None, reasons)))


def _average_lines(average: Average, settings: Iterable[str]) -> Iterator[Mapping[str, object]]:
    facts = {"task": "glue", "data": "real", "budget": "full", "model": average.model, "quant": average.quant}
    facts |= {path: average.settings.get(path, "") for path in settings}
    facts["simulated"] = _yes(is_simulated(average.bits, average.quant))
    for stage, cell in average.cells.items():
        numbers = _numbers(Quantity("average", stage, average.convention.name), cell)
        yield {**facts, **numbers, "error": "; ".join(average.gaps)}


def _overview_lines(overview: Overview, settings: Iterable[str]) -> Iterator[Mapping[str, object]]:
    facts = _data_of(overview)
    for row in overview.rows:
        of_row = _of_row(row, settings)
        for column, cell in zip(overview.columns, row.cells, strict=True):
            quantity = Quantity("task_score", row.stage, "+".join(column.metrics))
            yield {**facts, "task": column.task, **of_row, **_numbers(quantity, cell)}
        if row.average and overview.convention:
            quantity = Quantity("task_average", row.stage, overview.convention.name)
            yield {**facts, "task": "glue", **of_row, **_numbers(quantity, row.average)}


def _loss_lines(loss: Loss, settings: Iterable[str]) -> Iterator[Mapping[str, object]]:
    facts = {**_data_of(loss.comparison), **_of_row(loss.row, settings)}
    for stage, cell in loss.cells.items():
        yield {**facts, **_numbers(Quantity("relative_loss", stage, loss.metric), cell)}


def _interval_line(interval: Interval, settings: Iterable[str]) -> Mapping[str, object]:
    comparison = interval.comparison
    facts = {**_data_of(comparison), **_of_row(interval.row, settings)}
    numbers = {"n": len(interval.seeds), "median": interval.points, "seeds": _spaced(interval.seeds)}
    ends = {"unit": "points", "low": interval.low, "high": interval.high}
    stage = {"quantity": "interval", "stage": f"{interval.stage}-fp32", "metric": interval.metric}
    return {**facts, **stage, **numbers, **ends}


def _engine_lines(row: EngineRow, settings: Iterable[str]) -> Iterator[Mapping[str, object]]:
    """Yield the numbers of one engine, from its scores to its latencies; ``batch`` is a shape."""
    run, results = row.run, row.found
    facts: dict[str, object] = {
        "task": run.task,
        "data": "sample" if run.is_synthetic else "real",
        "budget": run.budget,
    }
    facts |= {"model": run.model, "quant": run.quant, "stage": row.name, "seeds": run.seed}
    facts |= {"simulated": _yes(row.simulated), **{path: run.find(path, "") for path in settings}}
    if gate := results.get("gate"):
        facts["parity"] = gate.get("verdict", "passed") if gate["passed"] else "failed"
        yield {**facts, "quantity": "agreement", "unit": "percent", "median": gate["agreement"]}
    for metric, value in results.get("scores", {}).items():
        numbers = {"metric": metric, "unit": "percent", "median": value, "caveat": row.caveat(metric) or ""}
        yield {**facts, "quantity": "score", **numbers}
    if audit := results.get("audit"):
        yield {**facts, "quantity": "integer_share", "unit": "percent", "median": audit["integer_share"]}
    if info := results.get("info"):
        yield {**facts, "quantity": "size", "unit": "bytes", "median": info["bytes"]}
    for name, value in session_numbers(results).items():
        yield {**facts, "quantity": name, "unit": "s" if name == "load_time" else "bytes", "median": value}
    for shape, times in results.get("latency", {}).items():
        for name, value in times.items():
            yield {**facts, "quantity": "latency", "metric": name, "batch": shape, "median": value}
    for shape, problem in results.get("problems", {}).items():
        yield {**facts, "quantity": "problem", "batch": shape, "error": problem}


def _published_lines(row: Published) -> Iterator[Mapping[str, object]]:
    for task, scores in row.scores.items():
        for metric, value in scores.items():
            yield {**_of_published(row), "task": task, "metric": metric, "median": value}
    for convention, value in row.average.items():
        average = {"task": "glue", "metric": convention, "median": value, "quantity": "average"}
        yield _of_published(row) | average


def _of_published(row: Published) -> dict[str, object]:
    """Return the fields of a published score, except for ``task``, ``metric`` and ``median``."""
    source = ", ".join(word for word in (row.source, row.detail, row.split) if word)
    stage = "fp32" if row.quant == "fp32" else row.method
    return {
        "data": "published", "model": row.model, "quant": row.quant, "method.kind": row.method,
        "quantity": "score", "stage": stage, "unit": "percent", "source": source, "mark": row.mark,
    }  # fmt: skip


def _data_of(each: Comparison | Overview) -> dict[str, object]:
    facts: dict[str, object] = {"data": "sample" if each.is_synthetic else "real", "budget": each.budget}
    return facts | ({"task": each.task} if isinstance(each, Comparison) else {})


def _of_row(row: Row | OverviewRow, settings: Iterable[str]) -> dict[str, object]:
    of_row: dict[str, object] = {"model": row.model, "quant": row.quant, "simulated": _yes(row.simulated)}
    return of_row | {path: row.settings.get(path, "") for path in settings}


def _numbers(quantity: Quantity, cell: Cell) -> dict[str, object]:
    numbers = cell.numbers
    undefined = [seed for seed, value in cell.values.items() if value is None]
    return {
        "quantity": quantity.name,
        "stage": quantity.stage,
        "metric": quantity.metric,
        "batch": quantity.batch,
        "unit": quantity.unit,
        "status": cell.status,
        "n": len(numbers),
        "median": cell.median if numbers else "",
        "min": numbers[0] if numbers else "",
        "max": numbers[-1] if numbers else "",
        "seeds": _spaced(seed for seed in cell.values if seed not in undefined),
        "failed_seeds": _spaced(cell.failed),
        "missing_seeds": _spaced(cell.missing),
        "undefined_seeds": _spaced(undefined),
        "error": "; ".join(dict.fromkeys(map(first_line, cell.failed.values()))),
    }


def _spaced(seeds: Iterable[int]) -> str:
    return " ".join(map(str, seeds))


def _yes(value: bool) -> str:
    return "true" if value else "false"
