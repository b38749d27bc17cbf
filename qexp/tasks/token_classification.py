"""Task adapter and training module for texts with a tag for each word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from qexp.artifacts.types import Tokens
from qexp.config import TokenTask
from qexp.context import RunContext
from qexp.data.batches import EVALUATION_BATCH, collate_words
from qexp.data.checkpoints import Checkpoint
from qexp.data.metrics.vectorized import measures_for, observed
from qexp.data.microbatches import Batch
from qexp.data.tokenization.words import IGNORED, WordSplit
from qexp.data.word_predictions import broken_rows, named, tags_of, word_logits
from qexp.models.distillation import divergence
from qexp.models.inference import on_arrays, runner
from qexp.models.loading import load_finetuned, load_pretrained
from qexp.tasks.base import Array, ForwardFn, Predictions
from qexp.tasks.classification import margins
from qexp.tasks.module import TaskModule


class Tagger(TaskModule):
    """Training module of an encoder whose head has an output per tag for each token."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the cross entropy, a mean over the first tokens of words; 0 without any word."""
        labels = batch["labels"].flatten()
        total = functional.cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORED, reduction="sum")
        return total / (labels != IGNORED).sum().clamp(min=1)


class TokenAdapter:
    """Adapter for token classification; a prediction is the tuple of the tags of a row's words.

    Logits are those of words, at their first tokens, [words, tags], with ``Predictions.words`` for each row.
    """

    training_module = Tagger

    def __init__(self, task: TokenTask) -> None:
        self.task = task

    def pretrained(self, start: Checkpoint, tokens: Tokens, seed: int) -> PreTrainedModel:
        """Return the pretrained encoder with a new head, initialized from ``seed``."""
        return load_pretrained(start.folder, self.task, seed)

    def finetuned(self, start: Checkpoint) -> PreTrainedModel:
        """Return the model of a checkpoint, with the outputs of its head in the task's order of tags."""
        return load_finetuned(start.folder, self.task)

    def runner(self, model: nn.Module, ctx: RunContext) -> ForwardFn:
        return runner(model, ctx)

    def split(self, folder: Path) -> WordSplit:
        return WordSplit.load(folder)

    def collate(self, split: WordSplit, rows: Array, pad_id: int) -> Batch:
        return collate_words(split, rows, pad_id=pad_id)

    def loss_count(self, split: WordSplit, rows: Array) -> int:
        """Return the number of words of these rows that have a token, at least 1 where there are rows."""
        return max(min(1, len(rows)), int(split.kept[rows].sum()))

    def loss_counts_per_row(self, batch: Batch) -> Tensor:
        return (batch["labels"] != IGNORED).sum(1)

    def distance(self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Return the mean divergence of the probabilities of tags, over words; 0 without any word."""
        counts = batch["labels"] != IGNORED
        return divergence(student[counts], teacher[counts], temperature).sum() / counts.sum().clamp(min=1)

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
        """Return the tags of each row's words; words without a token are ``O``, and have no logits."""
        split = WordSplit.load(tokens.split(name))
        kept = split.kept[:rows]
        logits = word_logits(
            on_arrays(run),
            split,
            rows,
            outputs=self.task.outputs,
            pad_id=tokens.pad_id,
            advance=advance,
            batch_size=batch_size,
        )
        return Predictions(
            np.asarray(split.row_ids[:rows]),
            tags_of(self.task, split, kept, logits),
            named(split.tags, split.tag_offsets[: len(kept) + 1], self.task.labels),
            logits,
            broken=len(broken_rows(logits, kept)),
            margins=margins(logits),
            words=kept,
        )

    def score(self, found: Predictions) -> dict[str, float | None]:
        """Return the metrics of spans and of words."""
        measures = measures_for(self.task.kind, self.task.scheme)
        return {name: observed(measures[name], found.predictions, found.labels) for name in self.task.metrics}

    def same(self, candidate: Predictions, reference: Predictions) -> Array:
        """Return which words have the same tag, bool [words]."""
        return np.asarray(candidate.logits.argmax(axis=1) == reference.logits.argmax(axis=1))
