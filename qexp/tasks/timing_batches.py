"""Batches for timing engines: of full length, or of real evaluation rows."""

from __future__ import annotations

import numpy as np

from qexp.artifacts.types import Tokens
from qexp.config import DeployEngines, Task
from qexp.deploy.engine import Batch
from qexp.tasks import adapter_for

REAL_BATCHES = 16
"""Number of batches of real rows that are timed in turn."""


def batches_of(tokens: Tokens, task: Task, deploy: DeployEngines, vocabulary: int) -> dict[str, list[Batch]]:
    """Return batches by the name of their shape: ``32x128``, or ``32xreal`` for rows of the evaluation split.

    A shape of full length has one batch without padding, so that the work depends on the shape alone.
    """
    shapes: dict[str, list[Batch]] = {
        f"{rows}x{length}": [full_batch(rows, length, vocabulary)] for rows, length in deploy.shapes
    }
    if deploy.real:
        shapes |= {f"{rows}xreal": _real(tokens, task, rows) for rows in deploy.batch_sizes}
    return shapes


SEARCH_BATCHES = 4
"""Number of batches of real rows that searches of a translation are timed on in turn."""


def sentences_of(tokens: Tokens, task: Task, rows: int) -> list[Batch]:
    """Return batches of so many sentences of the evaluation split, without their translations."""
    inputs = ("input_ids", "attention_mask")
    return [{name: batch[name] for name in inputs} for batch in _real(tokens, task, rows)[:SEARCH_BATCHES]]


def full_batch(rows: int, length: int, vocabulary: int) -> Batch:
    """Return the inputs of a batch of random token ids without padding, int64 [rows, length] each."""
    ids = np.random.default_rng(0).integers(0, vocabulary, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _real(tokens: Tokens, task: Task, rows: int) -> list[Batch]:
    """Return batches of the first evaluation split, in its order, each padded to its longest row."""
    adapter = adapter_for(task)
    split = adapter.split(tokens.split(next(iter(task.evaluation.values()))))
    count = len(split.lengths)
    ends = range(rows, min(count, rows * REAL_BATCHES) + 1, rows)
    row_numbers = [np.arange(end - rows, end) for end in ends] or [np.arange(rows) % count]
    batches = (adapter.collate(split, each, tokens.pad_id) for each in row_numbers)
    return [{name: tensor.numpy() for name, tensor in batch.items()} for batch in batches]
