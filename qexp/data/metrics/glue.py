"""Official GLUE metrics, in percent."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qexp.config import Metric

Array = np.ndarray[Any, Any]


def score(metrics: Sequence[Metric], predictions: Array, labels: Array) -> dict[str, float | None]:
    """Compute metrics in percent: accuracy and F1 in 0..100, the correlations in -100..100, unrounded.

    Conventions are those of scikit-learn and SciPy, as in the official GLUE evaluation: F1 treats class 1 as
    positive and is 0 without a true positive; ``f1_macro`` and ``f1_weighted`` are means of the F1 of each
    class that is predicted or gold in a row, the latter weighted by gold rows; ``f1_micro`` counts all
    classes together, and equals accuracy; Matthews' coefficient is 0 where its denominator is 0. A metric is
    None where it is undefined: a Pearson or Spearman correlation of one row or with constant input
    (Pearson: constant up to rounding errors), or any metric if a prediction is not finite (a model that
    returns NaN gets no score, not a lucky one).

    Args:
        metrics: Names of the metrics.
        predictions: Class ids (accuracy, F1 of any kind, Matthews) or numbers (Pearson, Spearman), [rows].
        labels: Gold values of the same kind, [rows].

    Raises:
        ValueError: Shapes differ or are not [rows], there are no rows, or a class id is not an integer.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.ndim != 1 or predictions.shape != labels.shape or not len(labels):
        raise ValueError(f"predictions {predictions.shape}, labels {labels.shape}: both must be [rows > 0]")
    if not np.isfinite(predictions).all():
        return dict.fromkeys(metrics)
    with warnings.catch_warnings():  # about degenerate input, for which the docstring defines the result
        warnings.simplefilter("ignore")
        return {name: _percent(_METRICS[name](predictions, labels)) for name in metrics}


def _percent(value: float) -> float | None:
    return 100 * float(value) if math.isfinite(value) else None


def _accuracy(predictions: Array, labels: Array) -> float:
    from sklearn.metrics import accuracy_score  # type: ignore[import-untyped, unused-ignore]

    return float(accuracy_score(_class_ids(labels), _class_ids(predictions)))


def _f1(predictions: Array, labels: Array) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(_class_ids(labels) == 1, _class_ids(predictions) == 1, zero_division=0))


def _averaged_f1(average: str) -> Callable[[Array, Array], float]:
    def of_classes(predictions: Array, labels: Array) -> float:
        from sklearn.metrics import f1_score

        gold, predicted = _class_ids(labels), _class_ids(predictions)
        return float(f1_score(gold, predicted, average=average, zero_division=0))

    return of_classes


def _matthews(predictions: Array, labels: Array) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(_class_ids(labels), _class_ids(predictions)))


def _pearson(predictions: Array, labels: Array) -> float:
    from scipy.stats import NearConstantInputWarning, pearsonr  # type: ignore[import-untyped, unused-ignore]

    if len(labels) < 2:
        return math.nan
    warnings.simplefilter("error", NearConstantInputWarning)  # rounding errors, not a correlation
    try:
        return float(pearsonr(predictions.astype(np.float64), labels.astype(np.float64)).statistic)
    except NearConstantInputWarning:
        return math.nan


def _spearman(predictions: Array, labels: Array) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(predictions, labels).statistic) if len(labels) > 1 else math.nan


_METRICS: dict[Metric, Callable[[Array, Array], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "f1_macro": _averaged_f1("macro"),
    "f1_micro": _averaged_f1("micro"),
    "f1_weighted": _averaged_f1("weighted"),
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}


def _class_ids(values: Array) -> Array:
    ids = values.astype(np.int64)
    if not np.array_equal(ids, values):
        raise ValueError(f"class ids must be integers, got {values[ids != values][0]}")
    return ids
