"""Task adapter and training module for texts with any number of labels each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qexp.artifacts.types import Scores, Tokens
from qexp.config import MultiLabelTask, Task
from qexp.context import RunContext
from qexp.data.batches import EVALUATION_BATCH
from qexp.data.metrics.label_sets import best_thresholds, cuts_of, score_label_sets, tuples
from qexp.data.metrics.score_shift import sigmoid
from qexp.data.microbatches import Batch
from qexp.data.sources.splits import HELD_OUT
from qexp.data.tokenization.texts import TokenSplit
from qexp.models.distillation import divergence
from qexp.models.inference import split_logits
from qexp.tasks.base import Array, ForwardFn, Predictions
from qexp.tasks.classification import HeadAdapter
from qexp.tasks.module import TaskModule


class LabelClassifier(TaskModule):
    """Training module of an encoder whose head has one output for each label."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the binary cross entropy, a mean over rows and labels."""
        return functional.binary_cross_entropy_with_logits(logits, batch["labels"])


class MultiLabelAdapter(HeadAdapter[MultiLabelTask]):
    """Adapter for multi-label tasks; a prediction is the tuple of the ids of a row's labels."""

    training_module = LabelClassifier

    def loss_counts_per_row(self, batch: Batch) -> Tensor:
        return torch.ones_like(batch["labels"][:, 0])

    def distance(self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Return the mean divergence of the probabilities of having a label or not."""
        first, second = (torch.stack([each, torch.zeros_like(each)], dim=-1) for each in (student, teacher))
        return divergence(first, second, temperature).mean()

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
        """Return the labels of each row; margins are the distances of logits from their cuts."""
        split = TokenSplit.load(tokens.split(name))
        logits = split_logits(run, split, rows, pad_id=tokens.pad_id, advance=advance, batch_size=batch_size)
        distances = logits.astype(np.float64) - self.cuts
        return Predictions(
            np.asarray(split.row_ids[:rows]),
            tuples(distances > 0),
            tuples(np.asarray(split.labels[:rows]) > 0),
            logits,
            broken=int((~np.isfinite(logits)).any(axis=1).sum()),
            notes=self._notes(),
            margins=np.abs(distances),
        )

    def score(self, found: Predictions) -> dict[str, float | None]:
        return score_label_sets(self.task.metrics, found.predictions, found.labels)

    def same(self, candidate: Predictions, reference: Predictions) -> Array:
        """Return which decisions on a label of a row are the same, bool [rows, labels]."""
        return np.asarray((candidate.logits > self.cuts) == (reference.logits > self.cuts))

    @property
    def cuts(self) -> Array:
        """Logit of the threshold of each label, float64 [labels]."""
        return cuts_of(self.task.thresholds)

    def _notes(self) -> dict[str, Any]:
        thresholds = self.task.search.thresholds
        return {"thresholds": dict(zip(self.task.labels, thresholds, strict=True))} if thresholds else {}


def decided(task: Task, run: ForwardFn, tokens: Tokens, decoding: Scores | None, ctx: RunContext) -> Task:
    """Return the task with thresholds chosen: those of ``decoding``, or else the best of a model itself.

    A task whose thresholds are fixed, or that has none, is returned as it is.

    Args:
        task: Task that may leave its thresholds open.
        run: Forward function of the model.
        tokens: Tokens, with the split of held-out rows.
        decoding: Scores of the model whose thresholds are used.
        ctx: Context of the run.
    """
    if not isinstance(task, MultiLabelTask) or task.search.fit == "none":
        return task
    if decoding is not None:
        return task.decided_by(decoding.thresholds or task.thresholds)
    total = int(tokens.facts["rows"][HELD_OUT])
    with ctx.console.bar("thresholds", total=total) as advance:
        found = MultiLabelAdapter(task).predict(run, tokens, HELD_OUT, rows=None, advance=advance)
    if found.broken:
        return task.decided_by(task.thresholds)
    gold = np.asarray(TokenSplit.load(tokens.split(HELD_OUT)).labels) > 0
    probabilities = sigmoid(found.logits.astype(np.float64))
    return task.decided_by(best_thresholds(probabilities, gold))
