"""Batches to time engines on: of full length, and as the evaluation rows come."""

from __future__ import annotations

import numpy as np

from qexp.artifacts.types import Tokens
from qexp.config import Engines, Task
from qexp.deploy.engine import Batch
from qexp.tasks import family_of

REAL_BATCHES = 16
"""Batches of real rows that are timed in turn."""


def batches_of(tokens: Tokens, task: Task, deploy: Engines, vocabulary: int) -> dict[str, list[Batch]]:
    """Batches by the name of their shape: ``32x128``, and ``32xreal`` with rows of the evaluation split.

    Those of full length are one batch each, without padding, so that shapes alone decide the work.
    """
    shapes: dict[str, list[Batch]] = {
        f"{rows}x{length}": [full_batch(rows, length, vocabulary)] for rows, length in deploy.shapes
    }
    if deploy.real:
        shapes |= {f"{rows}xreal": _real(tokens, task, rows) for rows in deploy.batch_sizes}
    return shapes


def full_batch(rows: int, length: int, vocabulary: int) -> Batch:
    """Random token ids without padding, int64 [rows, length] each."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _real(tokens: Tokens, task: Task, rows: int) -> list[Batch]:
    """The first rows of the first evaluation split in their order, each batch padded to its longest row."""
    family = family_of(task)
    split = family.split(tokens.split(next(iter(task.evaluation.values()))))
    count = len(split.lengths)
    ends = range(rows, min(count, rows * REAL_BATCHES) + 1, rows)
    chosen = [np.arange(end - rows, end) for end in ends] or [np.arange(rows) % count]
    batches = (family.collate(split, each, tokens.pad_id) for each in chosen)
    return [{name: tensor.numpy() for name, tensor in batch.items()} for batch in batches]
