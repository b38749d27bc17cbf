"""Bootstrap intervals of differences to FP32, over evaluation rows and seeds, from predictions in the store.

For each row of a comparison, metric and stage after FP32, the quantity is the median over the seeds of
``stage - FP32`` in points. Each resample draws the evaluation rows with replacement, the same ones for both
stages and for all seeds, and independently the seeds with replacement
(:func:`qexp.data.metrics.bootstrap.resampled_medians`). The ends of the interval are the 2.5 and 97.5
percentiles (Efron and Tibshirani 1993). With one seed, the interval covers only the choice of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from qexp.data.metrics.bootstrap import paired_bootstrap, resampled_medians
from qexp.data.metrics.vectorized import observed
from qexp.errors import DataError, QexpError
from qexp.naming import MODEL_STAGES
from qexp.reporting.comparison import Comparison, Row
from qexp.reporting.paired import checked_scores, interval_of, measures_of, score_name
from qexp.reporting.predictions import Array, Evaluation, evaluation_of, joined_rows


@dataclass(frozen=True)
class Interval:
    """Interval for one metric of one stage of one row."""

    comparison: Comparison
    row: Row
    stage: str
    metric: str
    """Key of the score."""
    seeds: tuple[int, ...]
    points: float | None
    """Median over the seeds of stage minus FP32; None if it is undefined for a seed."""
    low: float | None
    """Lower end of the 95 % interval; both ends are None if no resample defines the difference."""
    high: float | None
    rows: int
    """Number of evaluation rows."""
    undefined: int
    """Number of resamples in which the difference is undefined; the interval uses the others."""


@dataclass(frozen=True)
class NoInterval:
    """A stage of a row whose interval cannot be computed, with the reason."""

    comparison: Comparison
    row: Row
    stage: str
    reason: str


def intervals(
    comparisons: Sequence[Comparison], outputs: Path, *, resamples: int, seed: int = 0
) -> tuple[list[Interval], list[NoInterval]]:
    """Compute intervals for all rows that have predictions of a stage after FP32.

    Args:
        comparisons: Comparisons whose rows hold the runs.
        outputs: Folder that the runs wrote to.
        resamples: Number of resamples of rows and seeds.
        seed: Seed of the resampling.

    Returns:
        The intervals, and the stages without one with the reason.
    """
    results: list[Interval] = []
    failures: list[NoInterval] = []
    for comparison in comparisons:
        for row in comparison.rows:
            for stage in MODEL_STAGES[1:]:
                try:
                    results += _of_stage(
                        comparison, row, stage=stage, outputs=outputs, resamples=resamples, seed=seed
                    )
                except QexpError as error:
                    failures.append(NoInterval(comparison, row, stage, str(error)))
    return results, failures


def _of_stage(
    comparison: Comparison, row: Row, stage: str, *, outputs: Path, resamples: int, seed: int
) -> Iterator[Interval]:
    pairs = {
        number: (evaluation_of(run, "fp32", outputs), evaluation_of(run, stage, outputs))
        for number, of_seed in row.by_seed.items()
        if (run := of_seed.best) and stage in run.stages
    }
    if not pairs:
        return
    first, _ = next(iter(pairs.values()))
    for split in first.splits:
        sides, labels = _sides(list(pairs.values()), split)
        measures = measures_of(first)
        draws = paired_bootstrap(measures, sides, labels, resamples=resamples, seed=seed)
        for name, measure in measures.items():
            scores = [observed(measure, side, labels) for side in sides]
            differences = np.stack(draws[name][1::2]) - np.stack(draws[name][::2])
            low, high, undefined = interval_of(resampled_medians(differences, seed + 1))
            metric, seeds = score_name(first, name, split), tuple(pairs)
            points = _median_difference(scores)
            yield Interval(
                comparison,
                row,
                stage=stage,
                metric=metric,
                seeds=seeds,
                points=points,
                low=low,
                high=high,
                rows=len(labels),
                undefined=undefined,
            )


def _sides(pairs: Sequence[tuple[Evaluation, Evaluation]], split: str) -> tuple[list[Array], Array]:
    """Return FP32 and quantized predictions, alternating by seed, and the labels, all ordered by id.

    Raises:
        DataError: If the seeds were not evaluated on the same rows.
        StoreError: If predictions are missing or damaged, or do not reproduce the Record's scores.
    """
    sides: list[Array] = []
    labels: Array | None = None
    for first, second in pairs:
        first_predictions, second_predictions, golds = joined_rows(first, second, split)
        if labels is None:
            labels = golds
        elif len(labels) != len(golds) or (labels != golds).any():
            raise DataError(
                f"{pairs[0][0].name} and {first.name}, {split}: seeds were evaluated on other rows, so these "
                "cannot be drawn alike; run all seeds on the same data and budget"
            )
        for each, values in ((first, first_predictions), (second, second_predictions)):
            scores = {name: observed(of, values, golds) for name, of in measures_of(each).items()}
            checked_scores(each, split, scores)
            sides.append(values)
    assert labels is not None
    return sides, labels


def _median_difference(scores: Sequence[float | None]) -> float | None:
    """Return the median of quantized minus FP32 over the seeds; the scores alternate between the two."""
    pairs = zip(scores[::2], scores[1::2], strict=True)
    differences = [None if a is None or b is None else b - a for a, b in pairs]
    defined = [each for each in differences if each is not None]
    return median(defined) if len(defined) == len(differences) else None
