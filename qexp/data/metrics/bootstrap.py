"""Resampling tests on the rows that several evaluations share: paired bootstrap and randomization test.

Rows that agree in all numbers that enter a metric form one cell, and a resample holds how often each cell was
drawn. This is equivalent to drawing rows with replacement, but takes less memory.
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
"""Counts that are held in memory at once, 8 bytes each, plus a few arrays of the same size."""
ROUNDING = 1e-9
"""Rounding error allowed between two differences that are mathematically equal, in points."""


@dataclass(frozen=True)
class RowGroups:
    """Cells of equal rows: the numbers of each cell, [cells, numbers], and its count of rows, [cells]."""

    numbers: Floats
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, numbers: Floats) -> RowGroups:
        """Group rows with equal ``numbers``, [rows > 0, numbers], into cells."""
        return cls(*np.unique(numbers, axis=0, return_counts=True))

    def draws(self, resamples: int, seed: int) -> Iterator[Floats]:
        """Yield how often each cell was drawn, whole numbers [resamples, cells], in parts that fit memory."""
        generator, total = np.random.default_rng(seed), int(self.rows.sum())
        at_once = max(1, NUMBERS_AT_ONCE // len(self.rows))
        for start in range(0, resamples, at_once):
            size = min(at_once, resamples - start)
            yield generator.multinomial(total, self.rows / total, size=size).astype(np.float64)


def paired_bootstrap(
    measures: Mapping[str, Measure], sides: Sequence[Array], labels: Array, *, resamples: int, seed: int
) -> dict[str, list[Floats]]:
    """Compute metrics of several evaluations on the same resamples of the rows (Efron's bootstrap).

    Args:
        measures: Metrics by name.
        sides: Predictions of each evaluation for the same rows, [rows] each: class ids, finite numbers or
            texts.
        labels: Gold values, [rows].
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        Percent by metric, one array [resamples] per evaluation; NaN where a metric is undefined.
    """
    pairs = [(measure, side) for measure in measures.values() for side in sides]
    numbers = [measure.statistics(side, labels) for measure, side in pairs]
    cells = RowGroups.of(np.concatenate(numbers, axis=1))
    ends = list(accumulate(each.shape[1] for each in numbers))
    pair_numbers = np.split(cells.numbers, ends[:-1], axis=1)
    parts = [
        [measure.score(own, counts) for (measure, _), own in zip(pairs, pair_numbers, strict=True)]
        for counts in cells.draws(resamples, seed)
    ]
    scores = iter([np.concatenate(chunks) for chunks in zip(*parts, strict=True)])
    return {name: [next(scores) for _ in sides] for name in measures}


def randomization_test(
    measure: Measure, first: Array, second: Array, labels: Array, *, draws: int = 2000, seed: int = 0
) -> float:
    """Return the two-sided p-value of the difference of a metric between two sets of predictions.

    Rows are swapped between the sides at random. If both sides are alike, the observed difference is one of
    those that swapping yields (approximate randomization, Noreen 1989, "Computer-intensive methods for
    testing hypotheses").

    Args:
        measure: Metric, which must be defined for both sides.
        first: Predictions of the first side, [rows].
        second: Predictions of the second side for the same rows, [rows].
        labels: Gold values, [rows].
        draws: Number of random swaps.
        seed: Seed of the draws.
    """
    rows, generator = len(labels), np.random.default_rng(seed)
    numbers = measure.statistics(np.concatenate([first, second]), np.concatenate([labels, labels]))

    def differences(picked: Floats) -> Floats:
        """Return the absolute differences, [draws], if ``picked`` rows, [draws, rows], keep their sides."""
        counts = np.concatenate([picked, 1 - picked], axis=1)
        first, second = np.split(measure.score(numbers, np.concatenate([counts, 1 - counts])), 2)
        return np.abs(first - second)

    observed = differences(np.ones((1, rows)))[0] - ROUNDING
    at_once = max(1, NUMBERS_AT_ONCE // (4 * rows))
    sizes = (min(at_once, draws - start) for start in range(0, draws, at_once))
    extreme = sum(
        int((differences(generator.integers(0, 2, (size, rows)).astype(np.float64)) >= observed).sum())
        for size in sizes
    )
    return (extreme + 1) / (draws + 1)


def resampled_medians(of_seeds: Floats, seed: int) -> Floats:
    """Compute the median over seeds drawn with replacement, drawn anew for each resample of the rows.

    Rows and seeds are drawn independently of each other, so that the spread of the medians covers both: the
    pigeonhole bootstrap of crossed factors (Owen 2007, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1; after McCullagh 2000). It errs on the wide side. With one seed there is nothing to draw.

    Args:
        of_seeds: Value of each seed on each resample of the rows, [seeds, resamples].
        seed: Seed of the draws.

    Returns:
        Medians, [resamples]; NaN where a drawn value is NaN.
    """
    count, resamples = of_seeds.shape
    drawn = np.random.default_rng(seed).integers(0, count, size=(count, resamples))
    medians: Floats = np.median(np.take_along_axis(of_seeds, drawn, axis=0), axis=0)
    return medians
