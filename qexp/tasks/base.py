"""Interface between the framework and a kind of task: training, evaluation and comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from qexp.artifacts.types import Tokens
from qexp.context import RunContext
from qexp.data.batches import EVALUATION_BATCH
from qexp.data.checkpoints import Checkpoint
from qexp.data.microbatches import Batch
from qexp.tasks.module import TaskModule

Array = np.ndarray[Any, Any]

ForwardFn = Callable[[Batch], Any]
"""A model, in torch or in another runtime, as a function from a padded batch to its logits, or to what
``predict`` of the kind of task requires instead."""


@dataclass(frozen=True)
class Predictions:
    """Result of one evaluation, with an entry per row of the split, in its order.

    Attributes:
        ids: Id of each row in its source, int64 or str [rows].
        predictions: Class ids, numbers or texts, [rows].
        labels: Gold values in the same form; lists of texts where several are correct.
        logits: Logits, or scores, that the predictions derive from, float32 [rows, k]; [words, k] where a
            prediction is made of one for each word.
        broken: Number of rows, or windows, with NaN or infinite logits; unless it is 0, no metric is defined.
        notes: Details of the evaluation for the Record, as plain JSON values.
        margins: Gap between the best score and that of the best other prediction, float64 [rows]; infinite
            where there is no other, None where the kind of task has no such score. [rows, decisions] where a
            prediction is several decisions, [words] where it is one for each word.
        scores: Scores of the items of each prediction that is a list, float32 arrays, [rows]; else None.
        words: Number of words of each row that have logits, int64 [rows]; None where rows have them.
    """

    ids: Array
    predictions: Array
    labels: Array
    logits: NDArray[np.float32]
    broken: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)
    margins: Array | None = None
    words: Array | None = None
    scores: Array | None = None

    @property
    def rows(self) -> Array:
        """Row of each entry of the logits, counted from 0, int64."""
        numbers = np.arange(len(self.ids))
        return numbers if self.words is None else np.repeat(numbers, self.words)


class TaskAdapter(Protocol):
    """Operations that depend on the kind of task; an instance holds one task of its kind."""

    @property
    def training_module(self) -> Callable[..., TaskModule]:
        """Factory of the module that is trained, called like :class:`~qexp.tasks.module.TaskModule`."""

    def pretrained(self, start: Any, tokens: Tokens, seed: int) -> PreTrainedModel:
        """Return the model to fine-tune, from a checkpoint, or from scratch if the task supports that.

        Weights that the checkpoint lacks are initialized from ``seed``.
        """

    def finetuned(self, start: Checkpoint) -> PreTrainedModel:
        """Return the model of a checkpoint that is already fine-tuned for the task."""

    def runner(self, model: nn.Module, ctx: RunContext) -> ForwardFn:
        """Return the function that :meth:`predict` runs on each batch."""

    def split(self, folder: Path) -> Any:
        """Load a tokenized split; it has ``len`` and ``lengths``, counted by row or by window."""

    def collate(self, split: Any, rows: Array, pad_id: int) -> Batch:
        """Return padded tensors of rows of the split."""

    def loss_count(self, split: Any, rows: Array) -> int:
        """Return the number of terms over which the loss of a batch of these rows is a mean."""

    def loss_counts_per_row(self, batch: Batch) -> Tensor:
        """Return the number of loss terms of each row of a batch, [B], up to a common factor."""

    def distance(self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Return the distance of float32 logits from a teacher's, a mean over the terms of the loss."""

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
        """Predict the first ``rows`` rows of the split ``name``, or all if None.

        Args:
            run: Function from :meth:`runner`, or one of another runtime.
            tokens: Artifact of the tokenized splits.
            name: Name of the split.
            rows: Number of rows.
            advance: Callback that receives the number of rows after each batch.
            batch_size: Number of rows, or windows, per batch.
        """

    def score(self, found: Predictions) -> dict[str, float | None]:
        """Return the task's metrics in percent; None where one is undefined."""

    def same(self, candidate: Predictions, reference: Predictions) -> Array:
        """Return which rows, or decisions, are the same, bool [rows], [rows, decisions] or [words]."""
