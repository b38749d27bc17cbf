"""Metrics of many resamples of the rows at once, for two evaluations of the same rows.

Rows that are alike in the label and in both predictions make one cell, and a resample is how often each
cell was drawn: the same draw as of rows with replacement, and every metric is a few sums over cells.
Conventions, and what is undefined, are those of :func:`qexp.data.metrics.score`; the tests hold the two
together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.config import Metric

Array = NDArray[Any]
Floats = NDArray[np.float64]

NUMBERS_AT_ONCE = 2**20
"""Counts that are in memory at one time; 8 bytes each, and a few arrays of that size beside them."""
NEARLY_CONSTANT = float(np.finfo(np.float64).eps ** 0.75)
"""Norm of the deviations over the mean, below which SciPy calls an input nearly constant."""


@dataclass(frozen=True)
class Cells:
    """Distinct rows: their values, float64 [cells], and how many rows each cell stands for."""

    first: Floats
    second: Floats
    labels: Floats
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, first: Array, second: Array, labels: Array) -> Cells:
        """Cells of two predictions and a label for each row, all [rows > 0]."""
        table = np.stack([first, second, labels], axis=1).astype(np.float64)
        distinct, rows = np.unique(table, axis=0, return_counts=True)
        return cls(*distinct.T.copy(), rows)

    def draws(self, resamples: int, seed: int) -> Iterator[Floats]:
        """How often each cell was drawn, whole numbers [resamples, cells], in parts that fit into memory."""
        draw, total = np.random.default_rng(seed), int(self.rows.sum())
        at_once = max(1, NUMBERS_AT_ONCE // len(self.rows))
        for start in range(0, resamples, at_once):
            size = min(at_once, resamples - start)
            yield draw.multinomial(total, self.rows / total, size=size).astype(np.float64)


def paired_bootstrap(
    metrics: Sequence[Metric], first: Array, second: Array, labels: Array, *, resamples: int, seed: int
) -> dict[Metric, tuple[Floats, Floats]]:
    """Metrics of both predictions on the same resamples of the rows (Efron's bootstrap).

    Args:
        metrics: Names of the metrics.
        first: Class ids or numbers, finite, [rows].
        second: The same of the other evaluation, row by row.
        labels: Gold values, [rows].
        resamples: How many.
        seed: Of the draws.

    Returns:
        Percent by metric, for both predictions, [resamples]; NaN where a metric is undefined.
    """
    cells = Cells.of(first, second, labels)
    parts = [
        {
            metric: [
                score_draws(metric, predictions, cells.labels, counts)
                for predictions in (cells.first, cells.second)
            ]
            for metric in metrics
        }
        for counts in cells.draws(resamples, seed)
    ]
    return {
        metric: (
            np.concatenate([part[metric][0] for part in parts]),
            np.concatenate([part[metric][1] for part in parts]),
        )
        for metric in metrics
    }


def score_draws(metric: Metric, predictions: Floats, labels: Floats, counts: Floats) -> Floats:
    """One metric in percent for each row of ``counts`` [resamples, cells]; NaN where it is undefined."""
    return 100 * _METRICS[metric](predictions, labels, counts)


def _accuracy(predictions: Floats, labels: Floats, counts: Floats) -> Floats:
    right: Floats = counts @ (predictions == labels).astype(np.float64)
    return right / counts.sum(axis=1)


def _f1(predictions: Floats, labels: Floats, counts: Floats) -> Floats:
    """Of class 1: twice the true positives over all that are predicted and all that are there."""
    claimed, there = predictions == 1, labels == 1
    hits: Floats = counts @ (claimed & there).astype(np.float64)
    both: Floats = counts @ (claimed.astype(np.float64) + there)
    return np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)


def _matthews(predictions: Floats, labels: Floats, counts: Floats) -> Floats:
    """For any number of classes, from margins (Gorodkin 2004); 0 where the denominator is 0."""
    classes = np.unique(np.concatenate([predictions, labels]))
    claimed = counts @ (predictions[:, None] == classes).astype(np.float64)
    there = counts @ (labels[:, None] == classes).astype(np.float64)
    right = counts @ (predictions == labels).astype(np.float64)
    total = counts.sum(axis=1)
    above = right * total - (claimed * there).sum(axis=1)
    below = np.sqrt(total**2 - (claimed**2).sum(axis=1)) * np.sqrt(total**2 - (there**2).sum(axis=1))
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _pearson(predictions: Floats, labels: Floats, counts: Floats) -> Floats:
    return _correlation(predictions[None], labels[None], counts)


def _spearman(predictions: Floats, labels: Floats, counts: Floats) -> Floats:
    return _correlation(_ranks(predictions, counts), _ranks(labels, counts), counts)


def _ranks(values: Floats, counts: Floats) -> Floats:
    """Mean rank of each cell's value within each resample, [resamples, cells]; ties share theirs."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks: Floats = (drawn.cumsum(axis=1) - (drawn - 1) / 2)[:, group]
    return ranks


def _correlation(x: Floats, y: Floats, counts: Floats) -> Floats:
    """Pearson's coefficient with each cell counted as often as it was drawn; x and y [resamples or 1, cells].

    Deviations are taken from each resample's own mean: sums of squares alone would lose the digits of values
    that lie close together.
    """
    (x_off, x_norm, x_flat), (y_off, y_norm, y_flat) = _deviations(x, counts), _deviations(y, counts)
    above = np.einsum("rc,rc,rc->r", counts, x_off, y_off)
    undefined = x_flat | y_flat
    below = np.where(undefined, 1.0, x_norm) * np.where(undefined, 1.0, y_norm)
    return np.where(undefined, np.nan, np.clip(above / below, -1, 1))


def _deviations(values: Floats, counts: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Deviations from the mean, their norm, and whether the values drawn are all the same, or nearly so."""
    mean = (counts * values).sum(axis=1) / counts.sum(axis=1)
    off = values - mean[:, None]
    norm = np.sqrt(np.einsum("rc,rc,rc->r", counts, off, off))
    drawn = counts > 0
    least = np.where(drawn, values, np.inf).min(axis=1)
    most = np.where(drawn, values, -np.inf).max(axis=1)
    return off, norm, (least == most) | (norm < NEARLY_CONSTANT * np.abs(mean))


_METRICS: dict[Metric, Callable[[Floats, Floats, Floats], Floats]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
