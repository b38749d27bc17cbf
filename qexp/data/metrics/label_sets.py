"""Metrics of sets of labels, in percent, and thresholds that maximize the F1 of each label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def score_label_sets(metrics: Sequence[str], predictions: Array, labels: Array) -> dict[str, float | None]:
    """Compute metrics as scikit-learn does, over the labels that are predicted or gold in a row.

    Subset accuracy is the share of rows whose labels are all right and complete. F1 is 0 where nothing is
    predicted and gold. scikit-learn's own macro F1 of a matrix counts a label that never occurs as 0, too.

    Args:
        metrics: Names of the metrics.
        predictions: Ids of the predicted labels of each row, [rows] tuples.
        labels: Ids of the gold labels likewise.
    """
    predicted, gold = (matrix(each, count_of(predictions, labels)) for each in (predictions, labels))
    occurs = (predicted | gold).any(axis=0)
    scores = {name: _SCORES[name](predicted[:, occurs], gold[:, occurs]) for name in metrics}
    return {name: 100 * score for name, score in scores.items()}


def _micro(predicted: Array, gold: Array) -> float:
    return _f1(predicted.ravel(), gold.ravel())


def _macro(predicted: Array, gold: Array) -> float:
    of_labels = [*map(_f1, predicted.T, gold.T)]
    return sum(of_labels) / len(of_labels) if of_labels else 0.0


def _weighted(predicted: Array, gold: Array) -> float:
    support = gold.sum(axis=0)
    return float(np.average([*map(_f1, predicted.T, gold.T)], weights=support)) if support.any() else 0.0


def _subset_accuracy(predicted: Array, gold: Array) -> float:
    return float((predicted == gold).all(axis=1).mean())


def _f1(predicted: Array, gold: Array) -> float:
    """Return the F1 of one label; scikit-learn would take a matrix of one column for two classes."""
    from sklearn.metrics import f1_score  # type: ignore[import-untyped, unused-ignore]

    return float(f1_score(gold, predicted, zero_division=0)) if len(gold) else 0.0


_SCORES: Mapping[str, Callable[[Array, Array], float]] = {
    "f1_micro": _micro,
    "f1_macro": _macro,
    "f1_weighted": _weighted,
    "subset_accuracy": _subset_accuracy,
}


def count_of(*sides: Array) -> int:
    """Return one more than the largest id."""
    return 1 + max((each for side in sides for row in side for each in row), default=-1)


def matrix(rows: Array, count: int) -> NDArray[np.bool_]:
    """Return whether each row has each label, bool [rows, count]."""
    table = np.zeros((len(rows), count), bool)
    for row, ids in enumerate(rows):
        table[row, list(ids)] = True
    return table


def best_thresholds(probabilities: Array, gold: Array) -> list[float]:
    """Return the threshold of each label with the largest F1 on some rows.

    A threshold lies midway between two neighbouring probabilities; of several that are as good, it is the one
    nearest to 0.5. A label that no row has keeps 0.5 (Lipton, Elkan and Naryanaswamy 2014, "Optimal
    thresholding of classifiers to maximize F1 measure", on why thresholds of labels are chosen one by one).

    Args:
        probabilities: Probability of each label, [rows, labels].
        gold: Whether each row has each label, bool [rows, labels].
    """
    return [_best(*columns) for columns in zip(probabilities.T, gold.T, strict=True)]


def _best(probabilities: Array, gold: Array) -> float:
    if not gold.any():
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order].astype(np.float64), np.cumsum(gold[order])
    last = np.append(ranked[1:] < ranked[:-1], True)  # equal probabilities are on one side of a threshold
    cuts = (ranked + np.append(ranked[1:], 0.0)) / 2
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + gold.sum())
    candidates = np.flatnonzero(last & (cuts > 0) & (cuts < 1))
    if not len(candidates):
        return 0.5
    best = candidates[np.isclose(f1[candidates], f1[candidates].max(), rtol=1e-12)]
    return float(cuts[best[np.argmin(abs(cuts[best] - 0.5))]])


def cuts_of(thresholds: Sequence[float]) -> NDArray[np.float64]:
    """Return the logit of the threshold of each label, [labels]."""
    shares = np.array(thresholds)
    return np.asarray(np.log(shares) - np.log1p(-shares))


def tuples(rows: Array) -> Array:
    """Return the ids of the labels that each row of a bool matrix [rows, labels] has, objects [rows]."""
    ids = np.empty(len(rows), object)
    ids[:] = [tuple(np.flatnonzero(row).tolist()) for row in rows]
    return ids
