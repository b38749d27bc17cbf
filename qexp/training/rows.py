"""Rows of a training: which are drawn, which are held out, and the batches of all steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from qexp.artifacts.types import Tokens
from qexp.config import BatchSize, Task, TrainingSetup
from qexp.data.batches import Array, train_epochs
from qexp.data.microbatches import BatchSplit, MicroBatches
from qexp.data.tokenization.candidates import CandidateSplit
from qexp.data.tokenization.pairs import PairSplit
from qexp.data.tokenization.windows import WindowSplit
from qexp.errors import ConfigError
from qexp.tasks import adapter_for

HOLDOUT_STREAM = 1
"""Second part of the seed that draws held-out rows, so that the rows to train on are drawn as ever."""


@dataclass(frozen=True)
class TrainRows:
    """Rows of the tokenized train split: pairs, windows or texts, as a training takes them."""

    trained: Array
    """Rows to train on, ascending, int64."""
    held_out: Array
    """Rows that choose the weights to keep, ascending, int64; empty if none are held out."""


def draw_rows(split: Any, setup: TrainingSetup, holdout: float | int | None = None) -> TrainRows:
    """Draw the rows of a training by its seed.

    Windows of a question, and documents of a query, stay together.

    Args:
        split: Tokenized train split.
        setup: Seed, and number of rows to draw.
        holdout: Share or number of questions, queries or rows to hold out of these.

    Raises:
        ConfigError: Holding out so many leaves no row to train on.
    """
    drawn = np.sort(np.random.default_rng(setup.seed).permutation(len(split))[: setup.train_rows])
    if holdout is None:
        return TrainRows(drawn, drawn[:0])
    groups = _groups(split)[drawn]
    names = np.unique(groups)
    count = holdout if holdout >= 1 else max(1, round(holdout * len(names)))
    if count >= len(names):
        raise ConfigError(
            f"finetune.holdout={holdout:g}: {len(names)} rows are drawn to train on, and none would be left; "
            f"hold out fewer than {len(names)}, or train on more rows"
        )
    rng = np.random.default_rng([setup.seed, HOLDOUT_STREAM])
    held_out = np.isin(groups, rng.permutation(names)[: int(count)])
    return TrainRows(drawn[~held_out], drawn[held_out])


def _groups(split: Any) -> Array:
    """Return the number of the question, query or text that each row of a split belongs to, [rows]."""
    if isinstance(split, WindowSplit):
        return np.asarray(split.rows)
    if isinstance(split, CandidateSplit):
        return np.repeat(np.arange(len(split.query_ids)), np.diff(split.starts))
    return np.arange(len(split))


@dataclass(frozen=True)
class TrainBatches:
    """How the rows of a training become batches."""

    tokens: Tokens
    task: Task
    size: BatchSize
    epochs: float
    setup: TrainingSetup
    max_steps: int | None = None
    """Most steps, besides the limit of the setup."""

    def of(self, rows: Array, split: Any, parts: BatchSplit) -> MicroBatches:
        """Return all batches of rows of the train split in order."""
        adapter, lengths = adapter_for(self.task), split.lengths[rows]
        widths = split.widths[rows] if isinstance(split, PairSplit) else None
        epochs = train_epochs(
            lengths, size=self.size, epochs=self.epochs, seed=self.setup.seed, widths=widths
        )
        batches = [rows[batch] for epoch in epochs for batch in epoch][: self._most_steps]
        return MicroBatches(
            batches,
            partial(adapter.collate, split, pad_id=self.tokens.pad_id),
            parts,
            partial(adapter.loss_count, split),
            epoch_ends=_ends(list(map(len, epochs)), len(batches)),
        )

    @property
    def _most_steps(self) -> int | None:
        limits = [limit for limit in (self.max_steps, self.setup.train_steps) if limit is not None]
        return min(limits, default=None)


def _ends(sizes: Sequence[int], total: int) -> tuple[int, ...]:
    """Return the number of batches up to the end of each epoch, the last of which is ``total``."""
    ends = [end for end in accumulate(sizes) if end < total]
    return (*ends, total)
