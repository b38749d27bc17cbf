"""Scores that say nothing of a model: constant predictions, and what no look at the rows scores as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from qexp.config import Task, TextTask

SAME_NUMBER = 1e-6
"""Numbers of a regression that differ by at most this share of ``task.label_range`` are one number."""
ZERO_BY_CHANCE = ("matthews", "pearson", "spearman")
"""Correlations, which are 0 where predictions have nothing to do with the labels."""


def caveats(
    predictions: list[Any], labels: list[Any], task: Task, scores: Mapping[str, float | None]
) -> dict[str, str]:
    """Why scores of one evaluation split say nothing of the model, by metric; empty for sound ones.

    Args:
        predictions: Class ids, numbers or texts, of each row.
        labels: Gold values of each row, the same.
        task: What was evaluated.
        scores: Percent by metric, without the name of a split; None is undefined.
    """
    if (answer := _only_answer(predictions, task)) is not None and _vary(labels):
        return dict.fromkeys(scores, f"predicts {answer} for all {len(predictions)} rows")
    found = {}
    for metric, score in scores.items():
        if score is not None and (problem := _no_better(metric, score, labels, task)):
            found[metric] = f"not above {problem}"
    return found


def _only_answer(predictions: list[Any], task: Task) -> str | None:
    """What is predicted for every row; None where that is more than one thing, or there is one row."""
    if len(predictions) < 2:
        return None
    if isinstance(task, TextTask) and task.kind == "regression":
        low, high = task.label_range
        width = max(predictions) - min(predictions)  # NaN, of a broken model, is no constant
        return f"{predictions[0]:.4g}" if width <= SAME_NUMBER * (high - low) else None
    if any(other != predictions[0] for other in predictions):
        return None
    first = predictions[0]
    return repr(task.labels[first]) if isinstance(task, TextTask) else repr(first)


def _vary(labels: list[Any]) -> bool:
    """Whether one answer for all rows would be wrong on some."""
    return any(other != labels[0] for other in labels)


def _no_better(metric: str, score: float, labels: list[Any], task: Task) -> str | None:
    """The baseline that a score does not exceed, in words."""
    if metric in ZERO_BY_CHANCE:
        return "0, the level of chance" if score <= 0 else None
    if metric != "accuracy" or not isinstance(task, TextTask) or not _vary(labels):
        return None
    label, count = Counter(labels).most_common(1)[0]
    share = 100 * count / len(labels)
    return (
        f"{share:.2f}, the share of {task.labels[label]!r}, the most frequent class"
        if score <= share
        else None
    )
