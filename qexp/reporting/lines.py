"""Comparisons as CSV: one line for each row and quantity, numbers raw."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

from qexp.reporting.comparison import Cell, Comparison
from qexp.reporting.facts import INTEGER_KERNEL_BITS, Quantity
from qexp.reporting.glue import Average
from qexp.reporting.glue_table import columns_of
from qexp.reporting.selection import first_line

ALWAYS = ("method.kind", "calibrator.kind", "placement.name")
"""Settings that have a column of their own even where they do not differ."""
FACTS = ("task", "data", "budget", "model", "quant")
NUMBERS = (
    *("quantity", "stage", "metric", "batch", "unit", "status", "n", "median", "min", "max"),
    *("seeds", "failed_seeds", "missing_seeds", "undefined_seeds", "simulated", "parity", "error"),
)


def csv_text(comparisons: Sequence[Comparison], averages: Sequence[Average] = ()) -> str:
    """CSV with a header; settings stand in columns named by their dotted paths."""
    columns = (*(each.split for each in comparisons), columns_of(averages))
    settings = dict.fromkeys((*ALWAYS, *(path for split in columns for path in split.columns)))
    file = io.StringIO()
    writer = csv.DictWriter(file, [*FACTS, *settings, *NUMBERS], lineterminator="\n")
    writer.writeheader()
    for comparison in comparisons:
        writer.writerows(_lines(comparison, settings))
    for average in averages:
        writer.writerows(_average_lines(average, settings))
    return file.getvalue()


def _lines(comparison: Comparison, settings: Iterable[str]) -> Iterator[Mapping[str, object]]:
    data = "sample" if comparison.made_up else "real"
    facts = {"task": comparison.task, "data": data, "budget": comparison.budget}
    for row in comparison.rows:
        of_row = {"model": row.model, "quant": row.quant, "simulated": _yes(row.simulated)}
        of_row |= {path: row.settings.get(path, "") for path in settings}
        if any(of_seed.best and of_seed.best.record.parity for of_seed in row.by_seed.values()):
            of_row["parity"] = "passed"
        if row.broken_parity:
            of_row["parity"] = "failed"
        for quantity, cell in row.cells.items():
            if cell.values or cell.failed or cell.missing:
                yield {**facts, **of_row, **_numbers(quantity, cell)}
    for run in comparison.refused:
        of_run = {"model": run.model, "quant": run.quant, "quantity": "run", "failed_seeds": run.seed}
        yield {**facts, **of_run, "status": "failed", "n": 0, "error": first_line(run)}


def _average_lines(average: Average, settings: Iterable[str]) -> Iterator[Mapping[str, object]]:
    facts = {"task": "glue", "data": "real", "budget": "full", "model": average.model, "quant": average.quant}
    facts |= {path: average.settings.get(path, "") for path in settings}
    facts["simulated"] = _yes(min(average.bits) < INTEGER_KERNEL_BITS)
    for stage, cell in average.cells.items():
        numbers = _numbers(Quantity("average", stage, average.convention.name), cell)
        yield {**facts, **numbers, "error": "; ".join(average.gaps)}


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
