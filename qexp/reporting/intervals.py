"""How sure a difference to FP32 is: intervals over evaluation rows and seeds, from predictions in the store.

For each row of a comparison, metric and stage behind FP32, the quantity is the median over the seeds of
``stage - FP32`` in points. Its interval is made of resamples that draw the evaluation rows with replacement,
the same ones for both stages and for all seeds, and the seeds with replacement, independently
(:func:`qexp.data.metrics.bootstrap.resampled_medians`); its ends are the 2.5 and 97.5 percentiles (Efron and
Tibshirani 1993). With one seed it covers the choice of rows alone.
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
from qexp.reporting.comparison import Comparison, Row
from qexp.reporting.paired import checked_scores, interval_of, measures_of, score_name
from qexp.reporting.predictions import Array, Evaluation, evaluation_of, joined_rows
from qexp.reporting.run_view import TORCH_STAGES


@dataclass(frozen=True)
class Interval:
    """One metric of one stage of one row."""

    comparison: Comparison
    row: Row
    stage: str
    metric: str
    """Key of the score."""
    seeds: tuple[int, ...]
    points: float | None
    """Median over the seeds of stage minus FP32; None where it is undefined for a seed."""
    low: float | None
    """Ends of the 95 % interval; None where no resample defines the difference."""
    high: float | None
    rows: int
    """Evaluation rows."""
    undefined: int
    """Resamples that leave the difference undefined; the interval is that of the others."""


@dataclass(frozen=True)
class NoInterval:
    """A stage of a row whose interval cannot be had, and why."""

    comparison: Comparison
    row: Row
    stage: str
    reason: str


def intervals(
    comparisons: Sequence[Comparison], outputs: Path, *, resamples: int, seed: int = 0
) -> tuple[list[Interval], list[NoInterval]]:
    """Intervals of all rows that have predictions of a stage behind FP32, and what stops the others.

    Args:
        comparisons: Their rows name the runs.
        outputs: Folder that runs wrote to.
        resamples: Of rows and seeds.
        seed: Of the draws.
    """
    found: list[Interval] = []
    lacking: list[NoInterval] = []
    for comparison in comparisons:
        for row in comparison.rows:
            for stage in TORCH_STAGES[1:]:
                try:
                    found += _of_stage(comparison, row, stage, outputs, resamples, seed)
                except QexpError as error:
                    lacking.append(NoInterval(comparison, row, stage, str(error)))
    return found, lacking


def _of_stage(
    comparison: Comparison, row: Row, stage: str, outputs: Path, resamples: int, seed: int
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
        drawn = paired_bootstrap(measures, sides, labels, resamples=resamples, seed=seed)
        for name, measure in measures.items():
            known = [observed(measure, side, labels) for side in sides]
            apart = np.stack(drawn[name][1::2]) - np.stack(drawn[name][::2])
            low, high, undefined = interval_of(resampled_medians(apart, seed + 1))
            metric, seeds = score_name(first, name, split), tuple(pairs)
            points = _median_difference(known)
            yield Interval(comparison, row, stage, metric, seeds, points, low, high, len(labels), undefined)


def _sides(pairs: Sequence[tuple[Evaluation, Evaluation]], split: str) -> tuple[list[Array], Array]:
    """FP32 and quantized predictions of seed after seed, and the labels, all in the order of the ids.

    Raises:
        DataError: seeds were not evaluated on the same rows.
        StoreError: predictions are gone, damaged, or do not give the Record's scores.
    """
    sides: list[Array] = []
    labels: Array | None = None
    for first, second in pairs:
        ours, theirs, golds = joined_rows(first, second, split)
        if labels is None:
            labels = golds
        elif len(labels) != len(golds) or (labels != golds).any():
            raise DataError(
                f"{pairs[0][0].name} and {first.name}, {split}: seeds were evaluated on other rows, so these "
                "cannot be drawn alike; run all seeds on the same data and budget"
            )
        for each, values in ((first, ours), (second, theirs)):
            scores = {name: observed(of, values, golds) for name, of in measures_of(each).items()}
            checked_scores(each, split, scores)
            sides.append(values)
    assert labels is not None
    return sides, labels


def _median_difference(known: Sequence[float | None]) -> float | None:
    """Of FP32 and quantized scores in turn."""
    pairs = zip(known[::2], known[1::2], strict=True)
    differences = [None if a is None or b is None else b - a for a, b in pairs]
    defined = [each for each in differences if each is not None]
    return median(defined) if len(defined) == len(differences) else None
