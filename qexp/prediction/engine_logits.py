"""Logits of an engine for tokenized rows, without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.artifacts.types import Graph
from qexp.config import Task, TranslationTask
from qexp.data.batches import ArrayForwardFn, evaluation_batches, padded_arrays
from qexp.data.tokenization.texts import TokenSplit
from qexp.deploy.engine import Engine

Array = np.ndarray[Any, Any]


def predicts_without_torch(task: Task, runtime: str) -> bool:
    """Return whether a runtime predicts rows of a task without torch.

    A translation is searched by ``generate`` of transformers, which computes with tensors.
    """
    return not isinstance(task, TranslationTask) and runtime not in ("torch", "torch_int8")


def array_run(graph: Graph, load: Callable[[Any], Engine]) -> ArrayForwardFn:
    """Return the forward function of the engine that ``load`` makes of a graph with one file."""
    engine = load(graph.file)

    def forward(batch: dict[str, Array]) -> NDArray[np.float32]:
        return engine.run({name: batch[name] for name in engine.inputs})

    return forward


def engine_logits(
    run: ArrayForwardFn, split: TokenSplit, *, pad_id: int, advance: Callable[..., None], batch_size: int
) -> NDArray[np.float32]:
    """Return logits [rows, outputs] of all rows of a split, in their order."""
    batches = evaluation_batches(split.lengths, batch_size=batch_size)
    parts = []
    for batch in batches:
        parts.append(run(padded_arrays(split, batch, pad_id=pad_id)))
        advance(len(batch))
    logits = np.concatenate(parts).astype(np.float32, copy=False)
    ordered = np.empty_like(logits)
    ordered[np.concatenate(batches)] = logits
    return ordered
