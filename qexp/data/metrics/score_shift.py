"""How far quantization shifts the scores of a reranker, which thresholds of users depend on.

nDCG sees the order of a query's documents alone. A model that adds 1 to every logit keeps it, and takes other
documents at a fixed threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

QUANTILES = {"p1": 1, "p5": 5, "median": 50, "p95": 95, "p99": 99}
"""Percentiles of the differences that are reported, by name."""
Shift = dict[str, Any]
"""What is reported of one split, as plain JSON values."""


def score_shift(shifted: Array, reference: Array, threshold: float) -> Shift:
    """Return how the scores of a model differ from those of a reference, the FP32 model.

    Args:
        shifted: Logits of the documents of each query, [queries] sequences.
        reference: Those of the reference, likewise.
        threshold: Sigmoid of a logit above which a document is accepted, between 0 and 1.

    Returns:
        ``logit`` and ``probability`` (its sigmoid), each with ``mean``, ``median``, ``p1``, ``p5``, ``p95``,
        ``p99`` and ``max_abs`` of the differences (shifted minus reference); ``kendall`` (tau-b) and
        ``spearman``, means over the queries where they are defined, None if there is none; ``first_changed``,
        the share of queries, in percent, whose first document is another; ``accepted``, see
        :func:`acceptance`.
    """
    quantized, original = (np.concatenate([*map(_floats, side)]) for side in (shifted, reference))
    return {
        "queries": len(reference),
        "documents": len(original),
        "logit": _spread(quantized - original),
        "probability": _spread(sigmoid(quantized) - sigmoid(original)),
        **rank_correlations(shifted, reference),
        "first_changed": 100 * float(np.mean([*map(_first_changes, shifted, reference)])),
        "accepted": acceptance(quantized, original, threshold),
    }


def sigmoid(logits: Floats) -> Floats:
    """Return ``1 / (1 + exp(-logits))`` without overflow."""
    from scipy.special import expit  # type: ignore[import-untyped, unused-ignore]  # here, as it takes time

    return np.asarray(expit(logits))


def acceptance(quantized: Floats, original: Floats, threshold: float) -> dict[str, Any]:
    """Return how many documents a threshold accepts, and the threshold that accepts as many as before.

    Args:
        quantized: Logits of the quantized model, [documents].
        original: Logits of the reference, [documents].
        threshold: Sigmoid above which a document is accepted.

    Returns:
        ``threshold``; ``reference`` and ``shifted``, the documents that each accepts there; ``other``, those
        that one alone accepts; ``same_count``, the sigmoid midway between the last document that is accepted
        and the first that is not where the quantized model accepts as many, None where equal scores or an
        end of the scale leave no such threshold.
    """
    cut = float(np.log(threshold) - np.log1p(-threshold))
    accepted, kept = quantized > cut, original > cut
    return {
        "threshold": threshold,
        "reference": int(kept.sum()),
        "shifted": int(accepted.sum()),
        "other": int((accepted != kept).sum()),
        "same_count": _threshold_of(quantized, int(kept.sum())),
    }


def _threshold_of(logits: Floats, count: int) -> float | None:
    """Return the sigmoid above which ``count`` documents are; None if none separates them."""
    ranked = np.sort(logits)[::-1]
    if not 0 < count < len(ranked) or ranked[count - 1] == ranked[count]:
        return None
    return float(sigmoid(np.asarray((ranked[count - 1] + ranked[count]) / 2)))


def rank_correlations(shifted: Array, reference: Array) -> dict[str, float | None]:
    """Return the means of Kendall's tau-b and Spearman's coefficient over queries; None where undefined.

    A query counts where both models give its documents at least two different scores.
    """
    from scipy.stats import kendalltau, spearmanr  # type: ignore[import-untyped, unused-ignore]

    pairs = [
        (quantized, original)
        for quantized, original in zip(shifted, reference, strict=True)
        if min(len({*quantized}), len({*original})) > 1
    ]
    measures: Mapping[str, Callable[..., Any]] = {"kendall": kendalltau, "spearman": spearmanr}
    return {
        name: float(np.mean([measure(*pair).statistic for pair in pairs])) if pairs else None
        for name, measure in measures.items()
    }


def _first_changes(quantized: Any, original: Any) -> bool:
    """Return whether the reference's first document is below another one; ties do not count."""
    return bool(quantized[int(np.argmax(original))] < max(quantized))


def _spread(differences: Floats) -> dict[str, float]:
    levels = np.percentile(differences, [*QUANTILES.values()])
    found = dict(zip(QUANTILES, levels.tolist(), strict=True))
    return {"mean": float(differences.mean()), **found, "max_abs": float(np.abs(differences).max())}


def _floats(row: Any) -> Floats:
    return np.asarray(row, np.float64)
