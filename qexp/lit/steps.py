"""The steps of a training, from tokens on disk."""

from __future__ import annotations

from functools import partial

import numpy as np

from qexp.artifacts import Tokens
from qexp.config import Task
from qexp.data.batches import collate, train_batches
from qexp.data.tokens import TokenSplit
from qexp.lit.training import Steps


def training_steps(
    tokens: Tokens,
    task: Task,
    batch_size: int,
    epochs: float,
    train_rows: int | None,
    train_steps: int | None,
    seed: int,
) -> Steps:
    """All batches of a training in order: ``train_rows`` rows drawn by the seed, at most ``train_steps``."""
    split = TokenSplit.load(tokens.split(task.train))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(split))[:train_rows])
    batches = train_batches(split.lengths[chosen], batch_size=batch_size, epochs=epochs, seed=seed)
    rows = [chosen[batch] for batch in batches[:train_steps]]
    return Steps(rows, partial(collate, split, pad_id=tokens.pad_id))
