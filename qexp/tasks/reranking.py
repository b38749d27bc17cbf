"""Task adapter and training module for cross-encoders, which score the documents of a query."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qexp.artifacts.types import Tokens
from qexp.config import RerankingTask
from qexp.data.batches import EVALUATION_BATCH, collate
from qexp.data.metrics.candidate_places import gaps, places
from qexp.data.metrics.vectorized import measures_for, observed
from qexp.data.microbatches import Batch
from qexp.data.tokenization.candidates import CandidateSplit
from qexp.data.tokenization.texts import TokenSplit
from qexp.models.inference import split_logits
from qexp.tasks.base import Array, ForwardFn, Predictions
from qexp.tasks.classification import HeadAdapter
from qexp.tasks.module import TaskModule


class CrossEncoder(TaskModule):
    """Training module of an encoder whose head has one output for a pair of texts."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the binary cross entropy of the logits [B, 1] and targets in 0 to 1, a mean over pairs."""
        return functional.binary_cross_entropy_with_logits(logits.squeeze(-1), batch["labels"])


class RerankingAdapter(HeadAdapter[RerankingTask]):
    """Adapter for rerankings; a prediction is the tuple of the scores of a query's documents.

    Rows are queries. Logits are those of documents, [documents, 1], with their number by query in
    ``Predictions.words``. Training, calibration and latency take pairs of a query and a document one by one.
    """

    training_module = CrossEncoder

    def split(self, folder: Path) -> CandidateSplit:
        return CandidateSplit.load(folder)

    def collate(self, split: TokenSplit, rows: Array, pad_id: int) -> Batch:
        """Return padded tensors of pairs, with targets ``relevance / task.max_relevance``, cut at 1."""
        batch = collate(split, rows, pad_id=pad_id)
        return batch | {"labels": (batch["labels"] / self.task.largest).clamp(max=1.0)}

    def loss_counts_per_row(self, batch: Batch) -> Tensor:
        return torch.ones_like(batch["labels"])

    def distance(self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Return the mean squared error of logits, which keeps scores, not their order alone."""
        return functional.mse_loss(student, teacher)

    def predict(
        self,
        run: ForwardFn,
        tokens: Tokens,
        name: str,
        *,
        rows: int | None,
        advance: Callable[..., None],
        batch_size: int = EVALUATION_BATCH,
    ) -> Predictions:
        """Return the scores of each query's documents; margins are distances to the nearest other score."""
        split = CandidateSplit.load(tokens.split(name))
        ids = np.asarray(split.query_ids[:rows])
        starts = np.asarray(split.starts[: len(ids) + 1])
        count, counts = int(starts[-1]), np.diff(starts)
        done = _Queries(advance, len(ids), count)
        logits = split_logits(run, split, count, pad_id=tokens.pad_id, advance=done, batch_size=batch_size)
        broken = np.repeat(np.arange(len(ids)), counts)[~np.isfinite(logits).all(axis=1)]
        return Predictions(
            ids,
            _by_query(logits[:, 0], starts),
            _by_query(split.labels[:count], starts),
            logits,
            broken=len(np.unique(broken)),
            margins=gaps(logits[:, 0], counts),
            words=counts,
        )

    def score(self, found: Predictions) -> dict[str, float | None]:
        """Return the metrics of the order, each a mean over queries."""
        measures = measures_for(self.task.kind)
        return {name: observed(measures[name], found.predictions, found.labels) for name in self.task.metrics}

    def same(self, candidate: Predictions, reference: Predictions) -> Array:
        """Return which documents have as many before them in the order of their query, bool [documents]."""
        assert reference.words is not None
        one, other = (places(side.logits[:, 0], reference.words) for side in (candidate, reference))
        return np.asarray(one == other)


class _Queries:
    """Progress callback that turns a number of documents into one of queries."""

    def __init__(self, advance: Callable[..., None], queries: int, documents: int) -> None:
        self.advance, self.queries, self.total, self.done = advance, queries, max(1, documents), 0

    def __call__(self, documents: int) -> None:
        before, self.done = self.done, self.done + documents
        self.advance(self.done * self.queries // self.total - before * self.queries // self.total)


def _by_query(values: Array, starts: Array) -> Array:
    """Return the numbers of each query as a tuple of floats, objects [queries]."""
    rows: Any = np.empty(len(starts) - 1, object)
    listed = values.astype(np.float64).tolist()
    rows[:] = [tuple(listed[start:end]) for start, end in pairwise(starts.tolist())]
    return np.asarray(rows)
