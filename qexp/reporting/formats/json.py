"""Reports as JSON: every number with all its digits, by seed, and never NaN.

While :data:`SCHEMA` stays the same, the format only gains fields::

    {schema, verdicts: [...], tables: [...], overviews: [...], relative_losses: [...], averages: [...],
     published: [...], published_losses: [...],
     intervals: null or {resamples, found: [...], lacking: [...]},
     engines: [{task, model, quant, seed, record, engine, simulated, and the parts of a Record's engine}]}

    verdict         {task, data, budget, answer, sentences, next: [{command, purpose}], candidates: [{quant,
                     stage, runtime, state, reason, accepted, record, gate, change,
                     speed: {kind, ratio, …}}]}; candidates best first; change has metric, fp32, score,
                     points, low, high, rows, resamples, seeds
    table           {task, data: real or sample, budget, sources, seeds, metrics, columns, common, rows,
                     refused, notes}; columns are the settings that distinguish its rows, common those that
                     all rows share
    its row         {model, quant, bits, settings, simulated, seeds, records, cells: [{quantity, stage,
                     metric, batch, unit, ...cell}]}; records are the keys of its runs by seed,
                     caveats why scores say nothing of a model, by seed, stage and metric,
                     tags and notes what the user wrote to its runs, by seed
    cell            {status, median, values, failed, missing}; values by seed, null where undefined; failed
                     has the first line of the error by seed; status is ok, partial, undefined, failed,
                     interrupted or missing
    overview        {family, data, budget, convention, columns: [{title, task, metrics}], rows: [{model,
                     quant, stage, settings, cells, average}]}; cells by column, average a cell or null
    relative loss   {task, data, budget, model, quant, settings, metric, fp32: cell, stages: {stage: cell}}
    average         {model, quant, settings, convention, stages: {stage: cell}, gaps}
    published       {source, reference, mark, sites, convention, model, quant, method, detail, split, scores,
                     average}
    published loss  {source, model, quant, method, detail, mark, task, metric, fp32, loss}
    interval        {task, data, budget, model, quant, settings, stage, metric, seeds, rows, points, low,
                     high, undefined}; lacking ones have a reason instead of numbers

Scores and averages are in percent, differences and intervals in points, relative losses in percent of the
FP32 score, sizes in bytes, latencies in milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qexp.reporting.attempts import describe, first_line
from qexp.reporting.comparison import Cell, Comparison, Row
from qexp.reporting.engines import EngineRow
from qexp.reporting.glue import Average
from qexp.reporting.overview import Overview
from qexp.reporting.relative_loss import Loss, PublishedLoss
from qexp.reporting.report import Report
from qexp.reporting.tables.intervals import Intervals
from qexp.reporting.verdict.next_steps import next_steps
from qexp.reporting.verdict.sentences import sentences
from qexp.reporting.verdict.verdict import Verdict

if TYPE_CHECKING:
    from qexp.reporting.intervals import Interval, NoInterval

SCHEMA = "qexp-report/1"


def json_text(report: Report) -> str:
    """Format a report as JSON."""
    tree = {
        "schema": SCHEMA,
        "verdicts": [*map(_verdict, report.verdicts)],
        "tables": [*map(_table, report.comparisons)],
        "overviews": [*map(_overview, report.overviews)],
        "relative_losses": [*map(_loss, report.losses)],
        "averages": [*map(_average, report.averages)],
        "published": [*map(asdict, report.published)],
        "published_losses": [*map(_published_loss, report.published_losses)],
        "engines": [*map(_engine, report.engines)],
        "intervals": _intervals(report.intervals) if report.intervals else None,
    }
    return json.dumps(tree, allow_nan=False, ensure_ascii=False) + "\n"


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        **_data(verdict.comparison),
        "answer": verdict.answer,
        "sentences": sentences(verdict),
        "next": [*map(asdict, next_steps(verdict))],
        "candidates": [
            {
                **{"quant": each.row.quant, "stage": each.stage, "runtime": each.runtime},
                **{"state": each.state, "reason": each.reason, "accepted": each.accepted},
                **{"record": each.run.record.key, "gate": each.gate},
                "change": each.change and asdict(each.change),
                "speed": {**asdict(each.speed), "ratio": each.speed.ratio},
            }
            for each in verdict.candidates
        ],
    }


def _table(comparison: Comparison) -> dict[str, Any]:
    return {
        **_data(comparison),
        "sources": comparison.sources,
        "seeds": comparison.seeds,
        "metrics": comparison.metrics,
        "columns": comparison.split.columns,
        "common": comparison.split.common,
        "rows": [*map(_row, comparison.rows)],
        "refused": [f"{describe(run)}: {first_line(run)}" for run in comparison.refused],
        "notes": comparison.notes,
    }


def _row(row: Row) -> dict[str, Any]:
    bests = {seed: of_seed.best for seed, of_seed in row.by_seed.items()}
    cells = [
        {
            **{"quantity": quantity.name, "stage": quantity.stage, "metric": quantity.metric},
            **{"batch": quantity.batch, "unit": quantity.unit},
            **_cell(cell),
        }
        for quantity, cell in row.cells.items()
    ]
    return {
        **_identity(row),
        "bits": row.bits,
        "simulated": row.simulated,
        "seeds": row.seeds,
        "records": {seed: best.record.key for seed, best in bests.items() if best},
        "caveats": {
            seed: best.record.caveats for seed, best in bests.items() if best and best.record.caveats
        },
        "tags": {seed: list(best.tags) for seed, best in bests.items() if best and best.tags},
        "notes": {seed: note for seed, best in bests.items() if best and (note := best.find("note"))},
        "cells": cells,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "status": cell.status,
        "median": cell.median,
        "values": dict(cell.values),
        "failed": {seed: first_line(run) for seed, run in cell.failed.items()},
        "missing": cell.missing,
    }


def _overview(overview: Overview) -> dict[str, Any]:
    rows = [
        {
            **_identity(row),
            "stage": row.stage,
            "cells": [*map(_cell, row.cells)],
            "average": _cell(row.average) if row.average else None,
        }
        for row in overview.rows
    ]
    return {
        "family": overview.family,
        **_data(overview),
        "convention": overview.convention.name if overview.convention else None,
        "columns": [*map(asdict, overview.columns)],
        "rows": rows,
    }


def _loss(loss: Loss) -> dict[str, Any]:
    stages = {stage: _cell(cell) for stage, cell in loss.cells.items()}
    numbers = {"metric": loss.metric, "fp32": _cell(loss.fp32), "stages": stages}
    return {**_data(loss.comparison), **_identity(loss.row), **numbers}


def _average(average: Average) -> dict[str, Any]:
    stages = {stage: _cell(cell) for stage, cell in average.cells.items()}
    return {
        **_identity(average), "convention": average.convention.name, "stages": stages, "gaps": average.gaps
    }  # fmt: skip


def _published_loss(each: PublishedLoss) -> dict[str, Any]:
    names = ("source", "model", "quant", "method", "detail", "mark")
    fields = {name: getattr(each.row, name) for name in names}
    return {**fields, "task": each.task, "metric": each.metric, "fp32": each.fp32, "loss": each.loss}


def _engine(row: EngineRow) -> dict[str, Any]:
    facts = {"task": row.run.task, "model": row.run.model, "quant": row.run.quant, "seed": row.run.seed}
    return {
        **facts,
        "record": row.run.record.key,
        "engine": row.name,
        "simulated": row.simulated,
        **row.found,
    }


def _intervals(intervals: Intervals) -> dict[str, Any]:
    return {
        "resamples": intervals.resamples,
        "found": [*map(_interval, intervals.found)],
        "lacking": [{**_of_stage(each), "reason": each.reason} for each in intervals.lacking],
    }


def _interval(interval: Interval) -> dict[str, Any]:
    names = ("metric", "seeds", "rows", "points", "low", "high", "undefined")
    return _of_stage(interval) | {name: getattr(interval, name) for name in names}


def _of_stage(each: Interval | NoInterval) -> dict[str, Any]:
    return {**_data(each.comparison), **_identity(each.row), "stage": each.stage}


def _data(each: Comparison | Overview) -> dict[str, Any]:
    task = {"task": each.task} if isinstance(each, Comparison) else {}
    return {**task, "data": "sample" if each.is_synthetic else "real", "budget": each.budget}


def _identity(row: Any) -> dict[str, Any]:
    settings: Mapping[str, str] = row.settings
    return {"model": row.model, "quant": row.quant, "settings": dict(settings)}
