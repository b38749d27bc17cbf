"""Extractive question answering: each token has a score as the start and as the end of the answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForQuestionAnswering, PreTrainedModel

from qexp.artifacts.types import Tokens
from qexp.config import QuestionTask
from qexp.context import RunContext
from qexp.data.batches import EVALUATION_BATCH, collate_windows
from qexp.data.checkpoints import Checkpoint
from qexp.data.metrics.answer_spans import BestAnswers
from qexp.data.metrics.squad import score_v1, score_v2
from qexp.data.microbatches import Batch
from qexp.data.tokenization.references import References, read_reading
from qexp.data.tokenization.windows import WindowSplit
from qexp.data.window_answers import window_answers
from qexp.models.distillation import divergence
from qexp.models.inference import on_arrays, runner
from qexp.models.loading import load_new_head, load_with_head
from qexp.tasks.base import Array, ForwardFn, Predictions
from qexp.tasks.module import TaskModule


class Reader(TaskModule):
    """Training module of an encoder with two scores per token: that the answer starts or ends there."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross entropy of start and end over the tokens of a window."""
        return span_loss(logits, batch["labels"], batch["attention_mask"])


def span_loss(logits: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the cross entropies of start and end, with padding excluded.

    Without padding, the loss of a window does not depend on the other windows of its batch.

    Args:
        logits: Scores of start and end, [B, T, 2].
        places: First and last token of the answer, int64 [B, 2]; 0, the first special token, for none.
        mask: 1 for tokens, 0 for padding, [B, T].
    """
    scores = logits.masked_fill(mask[:, :, None] == 0, float("-inf"))
    return functional.cross_entropy(scores, places)  # [B, T, 2] against [B, 2]: the classes lie on axis 1


class QuestionAdapter:
    """Adapter for SQuAD v1.1 and v2.0; contexts are split into windows."""

    training_module = Reader

    def __init__(self, task: QuestionTask) -> None:
        self.task = task

    def pretrained(self, start: Checkpoint, tokens: Tokens, seed: int) -> PreTrainedModel:
        """Return the pretrained encoder with a new head, initialized from ``seed``."""
        # A checkpoint may be of another task, such as NLI with three labels.
        return load_new_head(start.folder, AutoModelForQuestionAnswering, seed, num_labels=2)

    def finetuned(self, start: Checkpoint) -> PreTrainedModel:
        return load_with_head(start.folder, AutoModelForQuestionAnswering)

    def runner(self, model: nn.Module, ctx: RunContext) -> ForwardFn:
        return runner(model, ctx)

    def split(self, folder: Path) -> WindowSplit:
        return WindowSplit.load(folder)

    def collate(self, split: WindowSplit, rows: Array, pad_id: int) -> Batch:
        return collate_windows(split, rows, pad_id=pad_id)

    def loss_count(self, split: WindowSplit, rows: Array) -> int:
        return len(rows)

    def loss_counts_per_row(self, batch: Batch) -> Tensor:
        return torch.ones_like(batch["labels"][:, 0], dtype=torch.float32)

    def distance(self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Return the mean divergence of the start and the end probabilities over the tokens of a window."""
        scores = student.transpose(1, 2), teacher.transpose(1, 2)  # [B, 2, T]
        return divergence(*scores, temperature, batch["attention_mask"][:, None] != 0).mean()

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
        """Return the answer to each question; the scores of a window are discarded once it is searched."""
        reading, search = read_reading(tokens.split(name), rows), self.task.search
        answers = self.answers(
            run, tokens, name=name, reading=reading, advance=advance, batch_size=batch_size
        )
        best = np.stack([answers.scores[:, 0], answers.null_scores], axis=1)
        limits = np.finfo(np.float32)
        return Predictions(
            reading.ids.to_numpy(),
            np.array(answers.texts, object),
            _column(reading.golds),
            best.clip(limits.min, limits.max).astype(np.float32),  # without any span: minus infinity
            broken=answers.broken,
            margins=answers.margins(search.null_threshold if self.task.unanswerable else None),
            notes=self._notes(answers, reading),
        )

    def score(self, found: Predictions) -> dict[str, float | None]:
        """Return exact match and F1, as the official scripts compute them."""
        texts, golds = list(found.predictions), [list(each) for each in found.labels]
        if not self.task.unanswerable:
            scores = score_v1(texts, golds)
        else:
            official = score_v2(texts, golds)
            scores = {"exact_match": official["exact"], "f1": official["f1"]}
        return {name: scores[name] for name in self.task.metrics}

    def same(self, candidate: Predictions, reference: Predictions) -> Array:
        """Return which rows have the same text, bool [rows].

        A quantized model changes some answers after the smallest change of its arithmetic: with W8A8 and
        embeddings moved by one unit in the last place, torch itself gave another text to 5 of 200 questions.
        A few values of the first layer round to the next step (1 in 100 000); six layers later most do.
        """
        return np.asarray(candidate.predictions == reference.predictions, bool)

    def answers(
        self,
        run: ForwardFn,
        tokens: Tokens,
        name: str,
        *,
        reading: References,
        advance: Callable[..., None],
        batch_size: int = EVALUATION_BATCH,
    ) -> BestAnswers:
        """Return the answers and their spans for the questions of ``reading``, the first rows of a split."""
        return window_answers(
            on_arrays(run),
            self.task,
            tokens.split(name),
            reading,
            pad_id=tokens.pad_id,
            advance=advance,
            batch_size=batch_size,
        )

    def _notes(self, answers: BestAnswers, reading: References) -> dict[str, Any]:
        """Return, for SQuAD v2.0, scores with and without an answer and the best ones over all thresholds."""
        notes: dict[str, Any] = {"broken_windows": answers.broken} if answers.broken else {}
        if self.task.unanswerable and not answers.broken:
            notes |= score_v2(answers.texts, reading.golds, answers.no_answer_probabilities.tolist())
        return notes


def _column(values: list[list[str]]) -> Array:
    """Return an array [rows] of lists; ``np.array`` would build a matrix from lists of equal length."""
    column = np.empty(len(values), object)
    column[:] = values
    return column
