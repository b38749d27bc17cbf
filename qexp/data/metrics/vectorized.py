"""Metrics as statistics per row and a score of weighted rows, so that many resamples are scored at once.

The resamples are those of :mod:`qexp.data.metrics.bootstrap`. Conventions, and the cases that are undefined,
are those of :func:`qexp.data.metrics.glue.score`, of :mod:`qexp.data.metrics.squad` and of sacreBLEU; tests
check that the implementations agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.data.metrics.bleu import BLEU_METRICS, DEFAULT, bleu_of_sums, n_grams
from qexp.data.metrics.label_sets import count_of, matrix
from qexp.data.metrics.ranking import CANDIDATES, RANKING, of_candidates, of_queries
from qexp.data.metrics.spans import RULES, span_counts, tag_counts
from qexp.data.metrics.squad import score_v1, score_v2

Array = NDArray[Any]
Floats = NDArray[np.float64]

NEARLY_CONSTANT = float(np.finfo(np.float64).eps ** 0.75)
"""Ratio of the norm of the deviations to the mean below which SciPy treats an input as nearly constant."""


@dataclass(frozen=True)
class Measure:
    """A metric, split into statistics of each row and a score of counted rows."""

    statistics: Callable[[Array, Array], Floats]
    """Function from predictions and labels, [rows] each, to the statistics of each row, [rows, numbers]."""
    score: Callable[[Floats, Floats], Floats]
    """Function from the statistics and how often each row counts, [resamples, rows], to percent, [resamples];
    NaN where the metric is undefined."""


def observed(measure: Measure, predictions: Array, labels: Array) -> float | None:
    """Return the metric of the rows, each counted once, in percent; None where it is undefined."""
    (value,) = measure.score(measure.statistics(predictions, labels), np.ones((1, len(labels))))
    return float(value) if np.isfinite(value) else None


def _summed(score: Callable[[Floats], Floats]) -> Callable[[Floats, Floats], Floats]:
    """Return a score that applies ``score`` to the sums over the rows, [resamples, numbers]."""

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
    """Return, for class 1, the true positives and the sum of predicted and actual positives, [rows, 2]."""
    predicted, actual = predictions == 1, labels == 1
    return np.stack([predicted & actual, predicted.astype(np.int64) + actual], axis=1).astype(np.float64)


def _f1(sums: Floats) -> Floats:
    hits, both = sums.T
    return 100 * _ratio(2 * hits, both)


def _by_class(predictions: Array, labels: Array) -> Floats:
    """Return [rows, 3 * classes]: one-hot of the true positive, of predicted plus gold, and of gold class."""
    classes = np.unique(np.concatenate([predictions, labels]))
    predicted, actual = (values[:, None] == classes for values in (predictions, labels))
    both = predicted.astype(np.int64) + actual
    return np.concatenate([predicted & actual, both, actual], axis=1).astype(np.float64)


def _by_label(predictions: Array, labels: Array) -> Floats:
    """Return the statistics of :func:`_by_class`, [rows, 3 * labels], of rows with a tuple of ids each."""
    count = count_of(predictions, labels)
    predicted, actual = (matrix(each, count) for each in (predictions, labels))
    both = predicted.astype(np.int64) + actual
    return np.concatenate([predicted & actual, both, actual], axis=1).astype(np.float64)


def _f1_macro(sums: Floats) -> Floats:
    """Return the mean F1 of the classes that are predicted or gold in a counted row."""
    hits, both, _ = np.split(sums, 3, axis=1)
    return 100 * _ratio(_ratio(2 * hits, both).sum(axis=1), (both > 0).sum(axis=1).astype(np.float64))


def _f1_micro(sums: Floats) -> Floats:
    hits, both, _ = (each.sum(axis=1) for each in np.split(sums, 3, axis=1))
    return 100 * _ratio(2 * hits, both)


def _f1_weighted(sums: Floats) -> Floats:
    """Return the mean F1 of the classes, weighted by their gold rows."""
    hits, both, gold = np.split(sums, 3, axis=1)
    return 100 * _ratio((gold * _ratio(2 * hits, both)).sum(axis=1), gold.sum(axis=1))


def _margins(predictions: Array, labels: Array) -> Floats:
    """Return [rows, 2 + 2 * classes]: 1, hit, one-hot of the predicted class, one-hot of the gold class."""
    classes = np.unique(np.concatenate([predictions, labels]))
    one = np.ones((len(labels), 1))
    indicators = [values[:, None] == classes for values in (predictions, labels)]
    return np.concatenate([one, _hits(predictions, labels), *indicators], axis=1)


def _matthews(sums: Floats) -> Floats:
    """Return Matthews' coefficient for any number of classes (Gorodkin 2004); 0 if the denominator is 0."""
    (total, right), (predicted, actual) = sums[:, :2].T, np.split(sums[:, 2:], 2, axis=1)
    numerator = right * total - (predicted * actual).sum(axis=1)
    denominator = np.sqrt(total**2 - (predicted**2).sum(axis=1)) * np.sqrt(total**2 - (actual**2).sum(axis=1))
    return 100 * _ratio(numerator, denominator)


def _ratio(above: Floats, below: Floats) -> Floats:
    """Return the ratio, or 0 where the denominator is not positive."""
    ratio: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return ratio


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
    """Return the rank of each value within each resample, [resamples, rows]; ties share their mean rank."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks: Floats = (drawn.cumsum(axis=1) - (drawn - 1) / 2)[:, group]
    return ranks


def _correlation(x: Floats, y: Floats, counts: Floats) -> Floats:
    """Return Pearson's coefficient of x and y, [resamples or 1, rows], with rows counted as often as drawn.

    Deviations are taken from each resample's own mean: plain sums of squares would lose the digits of values
    that lie close together.
    """
    (x_off, x_norm, x_flat), (y_off, y_norm, y_flat) = _deviations(x, counts), _deviations(y, counts)
    covariance = np.einsum("rc,rc,rc->r", counts, x_off, y_off)
    undefined = x_flat | y_flat
    norms = np.where(undefined, 1.0, x_norm) * np.where(undefined, 1.0, y_norm)
    return 100 * np.where(undefined, np.nan, np.clip(covariance / norms, -1, 1))


def _deviations(values: Floats, counts: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return deviations from the mean, their norm, and whether drawn values are constant, or nearly so."""
    mean = (counts * values).sum(axis=1) / counts.sum(axis=1)
    off = values - mean[:, None]
    norm = np.sqrt(np.einsum("rc,rc,rc->r", counts, off, off))
    drawn = counts > 0
    least = np.where(drawn, values, np.inf).min(axis=1)
    most = np.where(drawn, values, -np.inf).max(axis=1)
    return off, norm, (least == most) | (norm < NEARLY_CONSTANT * np.abs(mean))


# Texts


def _answers(name: str, predictions: Array, labels: Array) -> Floats:
    """Return the score of each question, 0 to 1, [rows, 1].

    Labels are lists of gold answers; an empty list marks a question without answer (SQuAD v2.0).
    """
    if all(map(len, labels)):
        scores = [
            score_v1([answer], [golds])[name] for answer, golds in zip(predictions, labels, strict=True)
        ]
    else:
        name = {"exact_match": "exact"}.get(name, name)
        scores = [
            score_v2([answer], [golds])[name] for answer, golds in zip(predictions, labels, strict=True)
        ]
    return np.array(scores)[:, None] / 100


def _of_translations(tokenize: str) -> dict[str, Measure]:
    return {
        name: Measure(
            partial(n_grams, name, tokenize),
            _summed(partial(bleu_of_sums, settings.get("smooth_method", "exp"))),
        )
        for name, settings in BLEU_METRICS.items()
    }


# Spans


def _f1_span(sums: Floats) -> Floats:
    hits, predicted, gold = sums.T
    return 100 * _ratio(2 * hits, predicted + gold)


def _precision(sums: Floats) -> Floats:
    return 100 * _ratio(sums[:, 0], sums[:, 1])


def _recall(sums: Floats) -> Floats:
    return 100 * _ratio(sums[:, 0], sums[:, 2])


def _of_spans(scheme: str) -> dict[str, Measure]:
    counts = partial(span_counts, scheme)
    return {
        "f1_span": Measure(counts, _summed(_f1_span)),
        "precision_span": Measure(counts, _summed(_precision)),
        "recall_span": Measure(counts, _summed(_recall)),
        "token_accuracy": Measure(tag_counts, _summed(_precision)),
    }


def _all_right(predictions: Array, labels: Array) -> Floats:
    pairs = zip(predictions, labels, strict=True)
    return np.array([float(tuple(predicted) == tuple(gold)) for predicted, gold in pairs])[:, None]


_ANSWER_MEASURES = {name: Measure(partial(_answers, name), _mean) for name in ("exact_match", "f1")}
_LABEL_MEASURES = {
    "accuracy": Measure(_hits, _mean),
    "f1": Measure(_positives, _summed(_f1)),
    "f1_macro": Measure(_by_class, _summed(_f1_macro)),
    "f1_micro": Measure(_by_class, _summed(_f1_micro)),
    "f1_weighted": Measure(_by_class, _summed(_f1_weighted)),
    "matthews": Measure(_margins, _summed(_matthews)),
    "pearson": Measure(_values, _pearson),
    "spearman": Measure(_values, _spearman),
}
MEASURES: Mapping[str, Mapping[str, Measure]] = {
    "classification": _LABEL_MEASURES,
    "regression": _LABEL_MEASURES,
    "question_answering": _ANSWER_MEASURES,
    "multi_label": {
        "f1_macro": Measure(_by_label, _summed(_f1_macro)),
        "f1_micro": Measure(_by_label, _summed(_f1_micro)),
        "f1_weighted": Measure(_by_label, _summed(_f1_weighted)),
        "subset_accuracy": Measure(_hits, _mean),
    },
    "embedding": _LABEL_MEASURES,
    "retrieval": {name: Measure(partial(of_queries, name), _mean) for name in RANKING},
    "reranking": {name: Measure(partial(of_candidates, name), _mean) for name in CANDIDATES},
    "token_classification": _of_spans("IOB2"),
    "translation": _of_translations(DEFAULT),
}
"""Measures by kind of task and name of the metric; those of spans are for the scheme IOB2, those of
translations for sacreBLEU's default tokens."""
_BY_SCHEME = {scheme: _of_spans(scheme) for scheme in RULES}
RIGHT: Mapping[str, Measure] = {
    "classification": _LABEL_MEASURES["accuracy"],
    "question_answering": _ANSWER_MEASURES["exact_match"],
    "multi_label": Measure(_hits, _mean),
    "token_classification": Measure(_all_right, _mean),
}
"""Measure that is 1 for right rows and 0 for others, by kind of task; other kinds have no right and wrong."""


def measures_for(kind: str, scheme: str | None = None, tokenize: str | None = None) -> Mapping[str, Measure]:
    """Return the measures of a kind of task, by name; empty for an unknown kind.

    Args:
        kind: ``task.kind``.
        scheme: ``task.scheme``, where the task has tags.
        tokenize: ``task.bleu_tokenize``, where the task is a translation.
    """
    if kind == "translation" and tokenize is not None:
        return _of_translations(tokenize)
    return _BY_SCHEME[scheme] if scheme in _BY_SCHEME else MEASURES.get(kind, {})
