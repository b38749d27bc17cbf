"""Every metric as numbers of each row, and what rows that are counted so and so often make of them.

A metric in this form is computed for many resamples of the rows at once (:mod:`qexp.data.metrics.bootstrap`).
Conventions, and what is undefined, are those of :func:`qexp.data.metrics.glue.score`, of
:mod:`qexp.data.metrics.squad` and of sacreBLEU; the tests hold them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.data.metrics.squad import score_v1, score_v2

Array = NDArray[Any]
Floats = NDArray[np.float64]

NEARLY_CONSTANT = float(np.finfo(np.float64).eps ** 0.75)
"""Norm of the deviations over the mean, below which SciPy calls an input nearly constant."""
ORDERS = 4
"""Longest n-gram of BLEU."""


@dataclass(frozen=True)
class Measure:
    """One metric."""

    statistics: Callable[[Array, Array], Floats]
    """Numbers of each row, [rows, numbers], from predictions and labels, [rows] each."""
    score: Callable[[Floats, Floats], Floats]
    """Percent, [resamples], from such numbers and how often each row counts, [resamples, rows]; NaN where the
    metric is undefined."""


def observed(measure: Measure, predictions: Array, labels: Array) -> float | None:
    """The metric of the rows as they are, in percent; None where it is undefined."""
    (found,) = measure.score(measure.statistics(predictions, labels), np.ones((1, len(labels))))
    return float(found) if np.isfinite(found) else None


def _summed(score: Callable[[Floats], Floats]) -> Callable[[Floats, Floats], Floats]:
    """A score of sums over the rows, [resamples, numbers]."""

    def of_rows(numbers: Floats, counts: Floats) -> Floats:
        sums: Floats = counts @ numbers
        return score(sums)

    return of_rows


def _mean(numbers: Floats, counts: Floats) -> Floats:
    means: Floats = (counts @ numbers[:, 0]) / counts.sum(axis=1)
    return 100 * means


# Classes


def _hits(predictions: Array, labels: Array) -> Floats:
    hits: Floats = (predictions == labels).astype(np.float64)
    return hits[:, None]


def _positives(predictions: Array, labels: Array) -> Floats:
    """True positives, and all that are predicted or there, of class 1."""
    claimed, there = predictions == 1, labels == 1
    return np.stack([claimed & there, claimed.astype(np.int64) + there], axis=1).astype(np.float64)


def _f1(sums: Floats) -> Floats:
    hits, both = sums.T
    return 100 * _ratio(2 * hits, both)


def _margins(predictions: Array, labels: Array) -> Floats:
    """One, right or not, and for each class whether it is predicted and whether it is there."""
    classes = np.unique(np.concatenate([predictions, labels]))
    one = np.ones((len(labels), 1))
    told = [values[:, None] == classes for values in (predictions, labels)]
    return np.concatenate([one, _hits(predictions, labels), *told], axis=1)


def _matthews(sums: Floats) -> Floats:
    """For any number of classes, from margins (Gorodkin 2004); 0 where the denominator is 0."""
    (total, right), (claimed, there) = sums[:, :2].T, np.split(sums[:, 2:], 2, axis=1)
    above = right * total - (claimed * there).sum(axis=1)
    below = np.sqrt(total**2 - (claimed**2).sum(axis=1)) * np.sqrt(total**2 - (there**2).sum(axis=1))
    return 100 * _ratio(above, below)


def _ratio(above: Floats, below: Floats) -> Floats:
    """0 where the denominator is 0."""
    found: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return found


# Numbers


def _values(predictions: Array, labels: Array) -> Floats:
    return np.stack([predictions, labels], axis=1).astype(np.float64)


def _pearson(numbers: Floats, counts: Floats) -> Floats:
    predictions, labels = numbers.T
    return _correlation(predictions[None], labels[None], counts)


def _spearman(numbers: Floats, counts: Floats) -> Floats:
    predictions, labels = numbers.T
    return _correlation(_ranks(predictions, counts), _ranks(labels, counts), counts)


def _ranks(values: Floats, counts: Floats) -> Floats:
    """Mean rank of each value within each resample, [resamples, rows]; ties share theirs."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks: Floats = (drawn.cumsum(axis=1) - (drawn - 1) / 2)[:, group]
    return ranks


def _correlation(x: Floats, y: Floats, counts: Floats) -> Floats:
    """Pearson's coefficient with each row counted as often as it was drawn; x and y [resamples or 1, rows].

    Deviations are taken from each resample's own mean: sums of squares alone would lose the digits of values
    that lie close together.
    """
    (x_off, x_norm, x_flat), (y_off, y_norm, y_flat) = _deviations(x, counts), _deviations(y, counts)
    above = np.einsum("rc,rc,rc->r", counts, x_off, y_off)
    undefined = x_flat | y_flat
    below = np.where(undefined, 1.0, x_norm) * np.where(undefined, 1.0, y_norm)
    return 100 * np.where(undefined, np.nan, np.clip(above / below, -1, 1))


def _deviations(values: Floats, counts: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Deviations from the mean, their norm, and whether the values drawn are all the same, or nearly so."""
    mean = (counts * values).sum(axis=1) / counts.sum(axis=1)
    off = values - mean[:, None]
    norm = np.sqrt(np.einsum("rc,rc,rc->r", counts, off, off))
    drawn = counts > 0
    least = np.where(drawn, values, np.inf).min(axis=1)
    most = np.where(drawn, values, -np.inf).max(axis=1)
    return off, norm, (least == most) | (norm < NEARLY_CONSTANT * np.abs(mean))


# Texts


def _answers(name: str, predictions: Array, labels: Array) -> Floats:
    """0 to 1 for each question; labels are the gold answers, none for a question without answer (v2.0)."""
    if all(map(len, labels)):
        found = [score_v1([said], [golds])[name] for said, golds in zip(predictions, labels, strict=True)]
    else:
        name = {"exact_match": "exact"}.get(name, name)
        found = [score_v2([said], [golds])[name] for said, golds in zip(predictions, labels, strict=True)]
    return np.array(found)[:, None] / 100


def _n_grams(predictions: Array, labels: Array) -> Floats:
    """Words of the translation and of the reference, then n-grams that are right, and all, by order."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(effective_order=True)  # of no effect on counts; without it each sentence is warned of
    scores = (bleu.sentence_score(said, [gold]) for said, gold in zip(predictions, labels, strict=True))
    rows = [[found.sys_len, found.ref_len, *found.counts, *found.totals] for found in scores]
    return np.array(rows, np.float64)


def _bleu(sums: Floats) -> Floats:
    """Of the corpus, with sacreBLEU's defaults: 13a tokens, case kept, exponential smoothing."""
    from sacrebleu.metrics.bleu import BLEU

    return np.array(
        [
            BLEU.compute_bleu(
                row[2 : 2 + ORDERS], row[2 + ORDERS :], row[0], row[1], smooth_method="exp"
            ).score
            for row in sums.astype(np.int64).tolist()
        ]
    )


_OF_ANSWERS = {name: Measure(partial(_answers, name), _mean) for name in ("exact_match", "f1")}
_OF_LABELS = {
    "accuracy": Measure(_hits, _mean),
    "f1": Measure(_positives, _summed(_f1)),
    "matthews": Measure(_margins, _summed(_matthews)),
    "pearson": Measure(_values, _pearson),
    "spearman": Measure(_values, _spearman),
}
MEASURES: Mapping[str, Mapping[str, Measure]] = {
    "classification": _OF_LABELS,
    "regression": _OF_LABELS,
    "question_answering": _OF_ANSWERS,
    "translation": {"bleu": Measure(_n_grams, _summed(_bleu))},
}
"""By kind of task and name of the metric."""
RIGHT: Mapping[str, Measure] = {
    "classification": _OF_LABELS["accuracy"],
    "question_answering": _OF_ANSWERS["exact_match"],
}
"""By kind of task, what is 1 for rows that are right; other kinds have no right and wrong."""
