"""What a kind of task must know to be trained, evaluated and compared."""

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
from qexp.context import Runtime
from qexp.data.batches import EVALUATION_BATCH
from qexp.data.checkpoints import Checkpoint
from qexp.data.microbatches import Batch
from qexp.tasks.module import Student

Array = np.ndarray[Any, Any]

Run = Callable[[Batch], Any]
"""A model as a function from a padded batch to its logits, in torch or in another runtime; or to what
``predict`` of a kind of task wants of it."""


@dataclass(frozen=True)
class Predictions:
    """One evaluation: a row for each row of the split, in its order.

    Attributes:
        ids: The source's id of each row, int64 or str [rows].
        predictions: Class ids, numbers or texts, [rows].
        labels: What is right, in the same form; a list of texts where several are.
        logits: What the predictions were read off, [rows, k].
        broken: How many rows, or windows, had logits that are no numbers; with any, no metric is defined.
        notes: How they were found, for the Record: plain JSON values.
        margins: By how much the best score exceeds that of the best other prediction, float64 [rows];
            infinite where there is no other, None where the kind of task has no such score.
    """

    ids: Array
    predictions: Array
    labels: Array
    logits: NDArray[np.float32]
    broken: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)
    margins: Array | None = None


class Family(Protocol):
    """A kind of task; an object of it knows its task."""

    @property
    def student(self) -> Callable[..., Student]:
        """Makes the module that is trained, as :class:`~qexp.tasks.module.Student` is made."""

    def pretrained(self, start: Any, tokens: Tokens, seed: int) -> PreTrainedModel:
        """The model to train, from a checkpoint, or from a blueprint where the kind of task knows these.

        What the checkpoint lacks is drawn from the seed.
        """

    def finetuned(self, start: Checkpoint) -> PreTrainedModel:
        """A checkpoint that is fine-tuned for the task."""

    def runner(self, model: nn.Module, rt: Runtime) -> Run:
        """What :meth:`predict` runs on a batch."""

    def split(self, folder: Path) -> Any:
        """What ``prepare`` left of a split; it has ``len`` and ``lengths``, by row or window."""

    def collate(self, split: Any, rows: Array, pad_id: int) -> Batch:
        """Padded tensors of rows of the split."""

    def terms(self, split: Any, rows: Array) -> int:
        """Over how many terms the loss of a batch of these rows is a mean."""

    def row_terms(self, batch: Batch) -> Tensor:
        """How many of these terms each row of a batch has, or numbers in the same proportion, [B]."""

    def distance(self, ours: Tensor, theirs: Tensor, batch: Batch, temperature: float) -> Tensor:
        """How far logits are from a teacher's, a mean over the terms of the loss; all are float32."""

    def predict(
        self, run: Run, tokens: Tokens, name: str, rows: int | None, move: Callable[..., None],
        batch_size: int = EVALUATION_BATCH,
    ) -> Predictions:  # fmt: skip
        """Predictions of the first ``rows`` rows of a split, None is all; so many rows are run at once."""

    def score(self, found: Predictions) -> dict[str, float | None]:
        """The task's metrics, in percent; null where one is undefined."""

    def same(self, ours: Predictions, theirs: Predictions) -> Array:
        """Which rows have the same prediction, bool [rows]."""
