"""Classification and regression of one text or a pair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from qexp.artifacts.types import Tokens
from qexp.config import TextTask
from qexp.context import Runtime
from qexp.data.batches import EVALUATION_BATCH, collate
from qexp.data.checkpoints import Checkpoint
from qexp.data.metrics.glue import score
from qexp.data.microbatches import Batch
from qexp.data.tokenization.texts import TokenSplit
from qexp.models.distillation import divergence
from qexp.models.inference import runner, split_logits
from qexp.models.loading import load_finetuned, load_pretrained
from qexp.tasks.base import Array, Predictions, Run
from qexp.tasks.module import Student

SAME_NUMBER = 0.05
"""Two numbers of a regression are the same prediction within this share of the label range.

Gold labels of STS-B are means of a few votes, in steps of about 4 % of their range. Nearer than that, two
computations of one quantized model cannot be held together: a last bit that differs turns one rounding,
and that rounding the next ones.
"""


class Classifier(Student):
    """An encoder with a head of one output for each class, or of one output."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Mean cross entropy, or the mean squared error of a regression."""
        return task_loss(logits, batch["labels"])


class Texts:
    """Batches, predictions and scores of a classification or regression."""

    student = Classifier

    def __init__(self, task: TextTask) -> None:
        self.task = task

    def pretrained(self, start: Checkpoint, tokens: Tokens, seed: int) -> PreTrainedModel:
        """The encoder under a head drawn from the seed."""
        return load_pretrained(start.folder, self.task, seed)

    def finetuned(self, start: Checkpoint) -> PreTrainedModel:
        """A checkpoint with its head, in the task's order of labels."""
        return load_finetuned(start.folder, self.task)

    def runner(self, model: nn.Module, rt: Runtime) -> Run:
        """Logits."""
        return runner(model, rt)

    def split(self, folder: Path) -> TokenSplit:
        """Tokens and labels."""
        return TokenSplit.load(folder)

    def collate(self, split: TokenSplit, rows: Array, pad_id: int) -> Batch:
        """Padded tensors."""
        return collate(split, rows, pad_id=pad_id)

    def terms(self, split: TokenSplit, rows: Array) -> int:
        """One for each row."""
        return len(rows)

    def row_terms(self, batch: Batch) -> Tensor:
        """All rows are alike."""
        return torch.ones_like(batch["labels"], dtype=torch.float32)

    def distance(self, ours: Tensor, theirs: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Mean divergence of the classes, or the mean squared error of a regression."""
        if ours.shape[-1] == 1:
            return functional.mse_loss(ours, theirs)
        return divergence(ours, theirs, temperature).mean()

    def predict(
        self, run: Run, tokens: Tokens, name: str, rows: int | None, move: Callable[..., None],
        batch_size: int = EVALUATION_BATCH,
    ) -> Predictions:  # fmt: skip
        """Classes or numbers, with their logits."""
        split = TokenSplit.load(tokens.split(name))
        logits = split_logits(run, split, rows, pad_id=tokens.pad_id, move=move, batch_size=batch_size)
        return Predictions(
            np.asarray(split.row_ids[:rows]),
            predict(torch.from_numpy(logits)).numpy(),
            np.asarray(split.labels[:rows]),
            logits,
            broken=int((~np.isfinite(logits)).any(axis=1).sum()),
            margins=margins(logits),
        )

    def score(self, found: Predictions) -> dict[str, float | None]:
        """The task's metrics."""
        return score(self.task.metrics, found.predictions, found.labels)

    def same(self, ours: Predictions, theirs: Predictions) -> Array:
        """The same class, or a number within :data:`SAME_NUMBER`; bool [rows]."""
        if self.task.kind == "classification":
            return np.asarray(ours.predictions == theirs.predictions)
        low, high = self.task.label_range
        return np.asarray(abs(ours.predictions - theirs.predictions) <= SAME_NUMBER * (high - low))


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy for integer labels [B] and logits [B, classes], else the mean squared error."""
    if labels.is_floating_point():
        return functional.mse_loss(logits.squeeze(-1), labels)
    return functional.cross_entropy(logits, labels)


def margins(logits: Array) -> Array | None:
    """Gap between the two largest logits [rows, classes]; None for the one number of a regression."""
    if logits.shape[1] == 1:
        return None
    best = np.sort(logits.astype(np.float64), axis=1)
    return np.asarray(best[:, -1] - best[:, -2])


def predict(logits: Tensor) -> Tensor:
    """Class ids [B], or numbers [B] of a head of width 1."""
    return logits.squeeze(-1) if logits.shape[-1] == 1 else logits.argmax(-1)
