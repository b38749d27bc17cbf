"""Relative loss against FP32, as Q8BERT prints it: the share of the FP32 score that quantization costs.

The loss of each metric is ``100 * (FP32 - quantized) / FP32`` in percent, positive where quantization loses
(Zafrir et al. 2019, table 1, and NLP Architect's page on it: 69.7 and 68.78 are 1.32 %). Both scores come
from one run, hence from one seed, and the median over the seeds is taken last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from qexp.reporting.attempts import RunsForSeed
from qexp.reporting.comparison import Cell, Comparison, Row
from qexp.reporting.published import Published, baseline_of
from qexp.reporting.run_view import DISTILLATION, OF_QUANTIZATION, Quantity

STAGES = ("ptq", "qat")
AGAINST_CONTROL = "qat-control"
"""Key of the loss of QAT against the FP32 model that was trained on for as long with the same teacher."""


@dataclass(frozen=True)
class Loss:
    """Relative loss of one metric of one row of a comparison."""

    comparison: Comparison
    row: Row
    metric: str
    fp32: Cell
    """FP32 scores in percent."""
    cells: Mapping[str, Cell]
    """Loss by stage, in percent of the FP32 score; None where that score is not above zero. Under
    :data:`AGAINST_CONTROL`, loss of QAT in percent of the score of its control."""


@dataclass(frozen=True)
class PublishedLoss:
    """Relative loss of a published row, computed from its scores."""

    row: Published
    task: str
    metric: str
    fp32: float
    loss: float


def relative_loss(fp32: float | None, quantized: float | None) -> float | None:
    """Return the loss in percent of the FP32 score; None if a score is undefined or FP32 is not positive."""
    if fp32 is None or quantized is None or fp32 <= 0:
        return None
    return 100 * (fp32 - quantized) / fp32


def losses(comparisons: Sequence[Comparison]) -> list[Loss]:
    """Return the losses of every quantized row and metric."""
    return [
        Loss(comparison, row, metric=metric, fp32=row.cells[fp32], cells=cells)
        for comparison in comparisons
        for metric in comparison.metrics
        for row in comparison.rows
        if (fp32 := Quantity("score", "fp32", metric)) in row.cells
        if (cells := dict(_cells(row, metric)) | _against_control(row, metric, comparison.rows))
    ]


def _cells(row: Row, metric: str) -> Iterator[tuple[str, Cell]]:
    for stage in STAGES:
        quantity = Quantity("score", stage, metric)
        if scores := row.cells.get(quantity):
            values = {seed: _loss(row.by_seed[seed], quantity) for seed in scores.values}
            yield stage, Cell(values, scores.failed, scores.missing)


def _loss(of_seed: RunsForSeed, quantity: Quantity) -> float | None:
    fp32 = of_seed.measured.get(Quantity("score", "fp32", quantity.metric))
    return relative_loss(fp32, of_seed.measured[quantity])


def _against_control(row: Row, metric: str, rows: Sequence[Row]) -> dict[str, Cell]:
    """Return the losses against the control, paired by seed; a seed without a control is missing."""
    scores = row.cells.get(Quantity("score", "qat", metric))
    control = next((other for other in rows if _is_control(other, row)), None)
    control_scores = control.cells.get(Quantity("score", "control", metric)) if control else None
    if not scores or not control_scores:
        return {}
    paired = {seed: value for seed, value in scores.values.items() if seed in control_scores.values}
    values = {seed: relative_loss(control_scores.values[seed], value) for seed, value in paired.items()}
    missing = tuple(sorted({*scores.missing, *(set(scores.values) - set(paired))}))
    return {AGAINST_CONTROL: Cell(values, scores.failed, missing)}


def _is_control(control: Row, row: Row) -> bool:
    """Return whether a row is the same training of the same model without quantizers."""
    if control.settings.get("method.kind") != "control" or control.model != row.model:
        return False
    ignored = (*OF_QUANTIZATION, "method.kind", "deploy.", DISTILLATION)
    compared = [path for path in control.settings if not path.startswith(ignored)] + [DISTILLATION]
    return all(control.settings.get(path) == row.settings.get(path) for path in compared)


def published_losses(rows: Sequence[Published]) -> list[PublishedLoss]:
    """Return the losses of published rows whose source has an FP32 score of the same metric."""
    results = []
    for row in rows:
        baseline = baseline_of(row, rows) if row.quant != "fp32" else None
        for task, scores in row.scores.items() if baseline else ():
            for metric, value in scores.items():
                fp32 = baseline.scores.get(task, {}).get(metric) if baseline else None
                loss = relative_loss(fp32, value)
                if fp32 is not None and loss is not None:
                    results.append(PublishedLoss(row, task, metric=metric, fp32=fp32, loss=loss))
    return results
