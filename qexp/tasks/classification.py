"""Task adapter and training module for classification and regression of single texts or text pairs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from qexp.artifacts.types import Tokens
from qexp.config import MultiLabelTask, RerankingTask, Task, TextTask
from qexp.context import RunContext
from qexp.data.batches import EVALUATION_BATCH, collate
from qexp.data.checkpoints import Checkpoint
from qexp.data.metrics.glue import score
from qexp.data.microbatches import Batch
from qexp.data.tokenization.texts import TokenSplit
from qexp.models.distillation import divergence
from qexp.models.inference import runner, split_logits
from qexp.models.loading import load_finetuned, load_pretrained
from qexp.tasks.base import Array, ForwardFn, Predictions
from qexp.tasks.module import TaskModule

T = TypeVar("T", bound=Task)
L = TypeVar("L", bound=TextTask | MultiLabelTask | RerankingTask)
SAME_NUMBER = 0.05
"""Largest difference, as a fraction of the label range, of two regression outputs that count as the same.

Gold labels of STS-B are means of a few votes, in steps of about 4 % of their range. A tighter tolerance would
not hold between two computations of one quantized model: a difference in the last bit flips one rounding,
which flips others behind it.
"""


class Classifier(TaskModule):
    """Training module of an encoder whose head has one output per class, or one output for a regression."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross entropy, or the mean squared error of a regression."""
        return task_loss(logits, batch["labels"])


class EncoderAdapter(Generic[T]):
    """What tasks of texts have in common: rows of tokens, with one result for each."""

    def __init__(self, task: T) -> None:
        self.task: T = task

    def runner(self, model: nn.Module, ctx: RunContext) -> ForwardFn:
        return runner(model, ctx)

    def split(self, folder: Path) -> TokenSplit:
        return TokenSplit.load(folder)

    def collate(self, split: TokenSplit, rows: Array, pad_id: int) -> Batch:
        return collate(split, rows, pad_id=pad_id)

    def loss_count(self, split: TokenSplit, rows: Array) -> int:
        return len(rows)


class HeadAdapter(EncoderAdapter[L]):
    """What those have in common whose encoder has a head for a whole text."""

    def pretrained(self, start: Checkpoint, tokens: Tokens, seed: int) -> PreTrainedModel:
        """Return the pretrained encoder with a new head, initialized from ``seed``."""
        return load_pretrained(start.folder, self.task, seed)

    def finetuned(self, start: Checkpoint) -> PreTrainedModel:
        """Return the model of a checkpoint, with the outputs of its head in the task's order of labels."""
        return load_finetuned(start.folder, self.task)


class TextAdapter(HeadAdapter[TextTask]):
    """Adapter for classification and regression tasks."""

    training_module = Classifier

    def loss_counts_per_row(self, batch: Batch) -> Tensor:
        return torch.ones_like(batch["labels"], dtype=torch.float32)

    def distance(self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Return the mean divergence of class probabilities, or the mean squared error of a regression."""
        if student.shape[-1] == 1:
            return functional.mse_loss(student, teacher)
        return divergence(student, teacher, temperature).mean()

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
        """Return class ids, or the outputs of a regression, with their logits."""
        split = TokenSplit.load(tokens.split(name))
        logits = split_logits(run, split, rows, pad_id=tokens.pad_id, advance=advance, batch_size=batch_size)
        return Predictions(
            np.asarray(split.row_ids[:rows]),
            predict(torch.from_numpy(logits)).numpy(),
            np.asarray(split.labels[:rows]),
            logits,
            broken=int((~np.isfinite(logits)).any(axis=1).sum()),
            margins=margins(logits),
        )

    def score(self, found: Predictions) -> dict[str, float | None]:
        return score(self.task.metrics, found.predictions, found.labels)

    def same(self, candidate: Predictions, reference: Predictions) -> Array:
        """Return which rows have the same class, or outputs within :data:`SAME_NUMBER`; bool [rows]."""
        if self.task.kind == "classification":
            return np.asarray(candidate.predictions == reference.predictions)
        low, high = self.task.span
        return np.asarray(abs(candidate.predictions - reference.predictions) <= SAME_NUMBER * (high - low))


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy of logits [B, classes] for integer labels [B], else the mean squared error."""
    if labels.is_floating_point():
        return functional.mse_loss(logits.squeeze(-1), labels)
    return functional.cross_entropy(logits, labels)


def margins(logits: Array) -> Array | None:
    """Return the gap between the two largest of the logits [rows, classes]; None for a single output."""
    if logits.shape[1] == 1:
        return None
    ordered = np.sort(logits.astype(np.float64), axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def predict(logits: Tensor) -> Tensor:
    """Return class ids [B], or the outputs [B] of a head of width 1."""
    return logits.squeeze(-1) if logits.shape[-1] == 1 else logits.argmax(-1)
