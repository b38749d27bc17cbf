"""Shift of a reranker's scores from those of the FP32 model, from the predictions of two evaluations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from qexp.artifacts.types import Scores
from qexp.config import RerankingTask, Task
from qexp.data.metrics.score_shift import Shift, score_shift


def score_shifts(found: Scores, reference: Scores, task: Task) -> dict[str, Shift]:
    """Return the shift of each evaluation split by its short name; empty for other kinds of task.

    Splits with logits that are no numbers are left out. Where an evaluation has fewer rows than the
    reference, as an engine behind ``gate.rows``, those are compared.
    """
    if not isinstance(task, RerankingTask):
        return {}
    pairs = {split: [_logits(scores, split) for scores in (found, reference)] for split in task.evaluation}
    return {
        split: score_shift(candidate, reference[: len(candidate)], task.threshold)
        for split, (candidate, reference) in pairs.items()
        if _finite(candidate) and _finite(reference)
    }


def _logits(scores: Scores, split: str) -> Any:
    """Return the logits of the documents of each query, [queries] lists."""
    file = pq.ParquetFile(scores.predictions(split))  # pq.read_table would import pandas
    return file.read(columns=["prediction"])["prediction"].to_pylist()


def _finite(rows: Any) -> bool:
    return all(bool(np.isfinite(row).all()) for row in rows)
