"""Caveats for scores that say nothing about a model: constant predictions, and trivial baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from qexp.config import MultiLabelTask, RerankingTask, RetrievalTask, Task, TextTask, TokenTask
from qexp.data.metrics.ranking import ndcg_of_any_order

SAME_NUMBER = 1e-6
"""Share of ``task.label_range`` by which regression predictions may differ and still count as constant."""
ZERO_BY_CHANCE = ("matthews", "pearson", "spearman")
"""Correlations: their expected value is 0 where predictions are unrelated to the labels."""


def caveats(
    predictions: list[Any], labels: list[Any], task: Task, scores: Mapping[str, float | None]
) -> dict[str, str]:
    """Return why scores of one evaluation split say nothing about the model, by metric; empty if none.

    Args:
        predictions: Class id, number or text of each row.
        labels: Gold value of each row, of the same kind.
        task: Task that was evaluated.
        scores: Percent by metric, without the name of a split; None where undefined.
    """
    if (answer := _only_answer(predictions, task)) is not None:
        alike = "" if _vary(labels) else ", which all have one label"
        return dict.fromkeys(scores, f"predicts {answer} for all {len(predictions)} rows{alike}")
    reasons = {}
    for metric, score in scores.items():
        if score is not None and (problem := _no_better(metric, score, labels, task)):
            reasons[metric] = f"not above {problem}"
    return reasons


def _only_answer(predictions: list[Any], task: Task) -> str | None:
    """Return the prediction that all rows share; None where predictions differ or there is only one row."""
    if len(predictions) < 2:
        return None
    if isinstance(task, TextTask) and task.kind == "regression":
        low, high = task.span
        width = max(predictions) - min(predictions)  # NaN from a broken model is not a constant
        return f"{predictions[0]:.4g}" if width <= SAME_NUMBER * (high - low) else None
    if isinstance(task, RerankingTask):
        scores = {score for row in predictions for score in row}
        return f"{scores.pop():.4g}" if len(scores) == 1 else None
    if isinstance(task, TokenTask):
        tags = {tag for row in predictions for tag in row}
        return repr(tags.pop()) if len(tags) == 1 else None
    if any(other != predictions[0] for other in predictions):
        return None
    first = predictions[0]
    if isinstance(task, RetrievalTask):
        return "one ranking"
    if isinstance(task, MultiLabelTask):
        return " and ".join(repr(task.labels[each]) for each in first) or "no label"
    return repr(task.labels[first]) if isinstance(task, TextTask) else repr(first)


def _vary(labels: list[Any]) -> bool:
    return any(other != labels[0] for other in labels)


def _no_better(metric: str, score: float, labels: list[Any], task: Task) -> str | None:
    """Return a description of the baseline that the score does not exceed; None if it exceeds it."""
    if metric in ZERO_BY_CHANCE:
        return "0, the level of chance" if score <= 0 else None
    if metric == "ndcg_at_10" and isinstance(task, RerankingTask):
        chance = 100 * ndcg_of_any_order(10, np.array([*map(tuple, labels)], object))
        return f"{chance:.2f}, that of a random order" if score <= chance else None
    if metric == "token_accuracy":
        return _most_frequent([tag for row in labels for tag in row], score, "tag")
    if metric != "accuracy" or not isinstance(task, TextTask):
        return None
    return _most_frequent([task.labels[label] for label in labels], score, "class")


def _most_frequent(names: list[str], score: float, what: str) -> str | None:
    """Return a description of the share of the most frequent name.

    None if the score is above it, or there is one name only.
    """
    name, count = Counter(names).most_common(1)[0]
    share = 100 * count / len(names)
    if not _vary(names) or score > share:
        return None
    return f"{share:.2f}, the share of {name!r}, the most frequent {what}"
