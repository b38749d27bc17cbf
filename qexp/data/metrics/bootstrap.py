"""Metrics of many resamples of the rows at once, for evaluations of the same rows.

Rows that are alike in all numbers that go into a metric make one cell, and a resample is how often each cell
was drawn: the same draw as of rows with replacement, in less memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.data.metrics.vectorized import Measure

Array = NDArray[Any]
Floats = NDArray[np.float64]

NUMBERS_AT_ONCE = 2**20
"""Counts that are in memory at one time; 8 bytes each, and a few arrays of that size beside them."""
ROUNDING = 1e-9
"""What two differences that are meant to be equal may differ by, in points."""


@dataclass(frozen=True)
class Cells:
    """Distinct rows: their numbers, [cells, numbers], and how many rows each cell stands for, [cells]."""

    numbers: Floats
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, numbers: Floats) -> Cells:
        """Cells of the numbers of each row, [rows > 0, numbers]."""
        return cls(*np.unique(numbers, axis=0, return_counts=True))

    def draws(self, resamples: int, seed: int) -> Iterator[Floats]:
        """How often each cell was drawn, whole numbers [resamples, cells], in parts that fit into memory."""
        draw, total = np.random.default_rng(seed), int(self.rows.sum())
        at_once = max(1, NUMBERS_AT_ONCE // len(self.rows))
        for start in range(0, resamples, at_once):
            size = min(at_once, resamples - start)
            yield draw.multinomial(total, self.rows / total, size=size).astype(np.float64)


def paired_bootstrap(
    measures: Mapping[str, Measure], sides: Sequence[Array], labels: Array, *, resamples: int, seed: int
) -> dict[str, list[Floats]]:
    """Metrics of several predictions on the same resamples of the rows (Efron's bootstrap).

    Args:
        measures: Metrics by name.
        sides: Predictions of each evaluation, row by row the same, [rows] each: class ids, finite numbers or
            texts.
        labels: Gold values, [rows].
        resamples: How many.
        seed: Of the draws.

    Returns:
        Percent by metric, for each of the predictions, [resamples]; NaN where a metric is undefined.
    """
    pairs = [(measure, side) for measure in measures.values() for side in sides]
    numbers = [measure.statistics(side, labels) for measure, side in pairs]
    cells = Cells.of(np.concatenate(numbers, axis=1))
    ends = list(accumulate(each.shape[1] for each in numbers))
    of_pairs = np.split(cells.numbers, ends[:-1], axis=1)
    parts = [
        [measure.score(own, counts) for (measure, _), own in zip(pairs, of_pairs, strict=True)]
        for counts in cells.draws(resamples, seed)
    ]
    scores = iter([np.concatenate(of_pair) for of_pair in zip(*parts, strict=True)])
    return {name: [next(scores) for _ in sides] for name in measures}


def randomization_test(
    measure: Measure, ours: Array, theirs: Array, labels: Array, *, draws: int = 2000, seed: int = 0
) -> float:
    """How often chance makes a metric of two predictions differ as much as it does: a two-sided p-value.

    Rows are swapped at random; if both sides are alike, the difference of the metric is one of those that
    swapping gives (approximate randomization, Noreen 1989, "Computer-intensive methods for testing
    hypotheses").

    Args:
        measure: The metric.
        ours: Predictions, [rows]; the metric of both sides is defined.
        theirs: The same rows by another way.
        labels: Gold values, [rows].
        draws: How many swaps.
        seed: Of the draws.
    """
    rows, draw = len(labels), np.random.default_rng(seed)
    numbers = measure.statistics(np.concatenate([ours, theirs]), np.concatenate([labels, labels]))

    def differences(picked: Floats) -> Floats:
        """With the rows that are picked from our side and the others from theirs, [draws, rows]."""
        counts = np.concatenate([picked, 1 - picked], axis=1)
        first, second = np.split(measure.score(numbers, np.concatenate([counts, 1 - counts])), 2)
        return np.abs(first - second)

    seen = differences(np.ones((1, rows)))[0] - ROUNDING
    at_once = max(1, NUMBERS_AT_ONCE // (4 * rows))
    sizes = (min(at_once, draws - start) for start in range(0, draws, at_once))
    extreme = sum(
        int((differences(draw.integers(0, 2, (size, rows)).astype(np.float64)) >= seen).sum())
        for size in sizes
    )
    return (extreme + 1) / (draws + 1)


def resampled_medians(of_seeds: Floats, seed: int) -> Floats:
    """Median over a draw of the seeds with replacement, anew for each resample of the rows.

    Rows and seeds are drawn independently of each other, so that the spread of the medians covers both: the
    pigeonhole bootstrap of crossed factors (Owen 2007, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1; after McCullagh 2000). It errs to the wide side. Of one seed there is nothing to draw.

    Args:
        of_seeds: A number of each seed on each resample of the rows, [seeds, resamples].
        seed: Of the draws.

    Returns:
        [resamples]; NaN where a number that was drawn is.
    """
    count, resamples = of_seeds.shape
    drawn = np.random.default_rng(seed).integers(0, count, size=(count, resamples))
    medians: Floats = np.median(np.take_along_axis(of_seeds, drawn, axis=0), axis=0)
    return medians
