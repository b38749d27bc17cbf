"""Embedding of texts: distance to the FP32 model's vectors, and cosines of pairs against similarities."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from qexp.artifacts.types import Tokens
from qexp.config import BiEncoderTask, EmbeddingTask
from qexp.data.batches import EVALUATION_BATCH, ProgressOfRows
from qexp.data.checkpoints import Checkpoint
from qexp.data.metrics.cosines import cosines
from qexp.data.metrics.glue import score
from qexp.data.microbatches import Batch
from qexp.data.tokenization.texts import TokenSplit
from qexp.errors import TrainingError
from qexp.models.inference import split_logits
from qexp.models.loading import load_embedder
from qexp.tasks.base import Array, ForwardFn, Predictions
from qexp.tasks.classification import EncoderAdapter
from qexp.tasks.module import TaskModule

B = TypeVar("B", bound=BiEncoderTask)
SAME_RANK = 0.05
"""Most places, as a share of the rows, by which the rank of a cosine may move and still count as the same.

As for a regression, a tighter one would not hold between two computations of one quantized model.
"""


class Embedder(TaskModule):
    """Training module of an encoder with a pooling, which learns from a teacher alone."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Refuse: a text by itself has no gold value.

        Raises:
            TrainingError: Always.
        """
        raise TrainingError(
            "method.distillation.labels: an embedding has no loss but the distance to the FP32 model; set "
            "method.distillation.labels=0 and method.distillation.logits=1"
        )


class BiEncoderAdapter(EncoderAdapter[B]):
    """What tasks have in common whose model makes a vector of each text."""

    training_module = Embedder

    def pretrained(self, start: Checkpoint, tokens: Tokens, seed: int) -> PreTrainedModel:
        """Return the model of the checkpoint, as an embedding has no head."""
        return self.finetuned(start)

    def finetuned(self, start: Checkpoint) -> PreTrainedModel:
        """Return the base model of the checkpoint with the task's pooling."""
        return load_embedder(start.folder, self.task.pooling)

    def loss_counts_per_row(self, batch: Batch) -> Tensor:
        return torch.ones_like(batch["labels"], dtype=torch.float32)

    def distance(self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Return the mean of 1 - cosine, which is half the squared distance of vectors of norm 1."""
        return 1 - (student * teacher).sum(-1).mean()


class EmbeddingAdapter(BiEncoderAdapter[EmbeddingTask]):
    """Adapter for embeddings. Batches are of texts, two for each pair, which training takes one by one."""

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
        """Return the cosine of each pair, with the embeddings of its two texts in place of logits."""
        split = TokenSplit.load(tokens.split(name))
        texts = None if rows is None else 2 * rows
        done = ProgressOfRows(advance, rows=1, texts=2)
        vectors = split_logits(run, split, texts, pad_id=tokens.pad_id, advance=done, batch_size=batch_size)
        pairs = vectors.reshape(len(vectors) // 2, 2, -1)
        logits = pairs.reshape(len(pairs), -1)
        return Predictions(
            np.asarray(split.row_ids[:texts:2]),
            cosines(pairs[:, 0], pairs[:, 1]),
            np.asarray(split.labels[:texts:2]),
            logits,
            broken=int((~np.isfinite(logits)).any(axis=1).sum()),
        )

    def score(self, found: Predictions) -> dict[str, float | None]:
        """Return the correlations of the cosines with the gold similarities."""
        return score(self.task.metrics, found.predictions, found.labels)

    def same(self, candidate: Predictions, reference: Predictions) -> Array:
        """Return which rows have the same rank among all, within :data:`SAME_RANK`; bool [rows]."""
        from scipy.stats import rankdata  # type: ignore[import-untyped, unused-ignore]

        moved = np.abs(rankdata(candidate.predictions) - rankdata(reference.predictions))
        return np.asarray(moved <= max(1.0, SAME_RANK * len(moved)))
