"""Predictions of every evaluation split, their scores, and their file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from qexp.artifacts import Scores, Tokens
from qexp.config import Task, score_name
from qexp.data.metrics import score
from qexp.data.tokens import TokenSplit
from qexp.lit.classification import predict
from qexp.lit.inference import split_logits
from qexp.runtime import Runtime


@dataclass(frozen=True)
class Predictions:
    """One evaluation: a row for each row of the split, in its order."""

    ids: NDArray[np.int64]
    predictions: NDArray[np.generic]
    labels: NDArray[np.generic]
    logits: NDArray[np.float32]


def score_splits(
    run: Callable[[dict[str, Tensor]], Tensor],
    tokens: Tokens,
    task: Task,
    rows: int | None,
    out: Scores,
    title: str,
    rt: Runtime,
) -> dict[str, float | None]:
    """Predict the first ``rows`` rows of each evaluation split, write them down, and score them."""
    metrics: dict[str, float | None] = {}
    for name, split_name in task.evaluation.items():
        split = TokenSplit.load(tokens.split(split_name))
        count = min(len(split), rows or len(split))
        with rt.screen.bar(f"{title} {name}", total=count) as move:
            logits = split_logits(run, split, count, pad_id=tokens.pad_id, move=move)
        found = Predictions(
            np.asarray(split.row_ids[:count]),
            predict(torch.from_numpy(logits)).numpy(),
            np.asarray(split.labels[:count]),
            logits,
        )
        write_predictions(found, out, name)
        scores = _score(found, task, rt)
        metrics |= {score_name(metric, name, task): value for metric, value in scores.items()}
    return metrics


def _score(found: Predictions, task: Task, rt: Runtime) -> dict[str, float | None]:
    """Metrics; none at all with a logit that is no number, whose argmax would still be a class."""
    broken = int((~np.isfinite(found.logits)).any(axis=1).sum())
    if broken:
        rt.screen.warn(
            f"{broken} of {len(found.ids)} rows have logits that are no numbers: every metric is undefined"
        )
        return dict.fromkeys(task.metrics)
    return score(task.metrics, found.predictions, found.labels)


def write_predictions(found: Predictions, out: Scores, name: str) -> None:
    """Parquet with ``id``, ``prediction``, ``label``, ``logit_0``, …"""
    columns = {"id": found.ids, "prediction": found.predictions, "label": found.labels}
    columns |= {f"logit_{index}": column for index, column in enumerate(found.logits.T)}
    pq.write_table(pa.table(columns), out.predictions(name))


def read_predictions(scores: Scores, name: str) -> Predictions:
    """What :func:`write_predictions` left."""
    table = pq.read_table(scores.predictions(name))
    logits = [table[column].to_numpy() for column in table.column_names if column.startswith("logit_")]
    return Predictions(
        table["id"].to_numpy(),
        table["prediction"].to_numpy(),
        table["label"].to_numpy(),
        np.stack(logits, axis=1),
    )
