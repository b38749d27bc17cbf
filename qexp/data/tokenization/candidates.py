"""Tokenization of queries with documents: a row of tokens for each pair of a query and a document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import RerankingTask, TextTask
from qexp.data.arrow import from_numpy, is_text, to_numpy
from qexp.data.tokenization.texts import Array, TokenSplit, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ARRAYS = ("starts", "query_ids")


@dataclass(frozen=True, eq=False, kw_only=True)
class CandidateSplit(TokenSplit):
    """Tokens of all pairs, those of a query one behind the other; ``labels`` are relevances, float32 [pairs].

    Attributes:
        starts: Pairs of query ``q`` are ``starts[q]`` to ``starts[q + 1]``; int64 [queries + 1].
        query_ids: Id of each query in the source, int64 [queries].
    """

    starts: Array
    query_ids: Array

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Memory-map the arrays that :func:`tokenize_candidates` wrote; pages are read on access."""
        pairs = TokenSplit.load(folder)
        queries = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        return cls(**vars(pairs), **queries)


def tokenize_candidates(
    table: pa.Table,
    task: RerankingTask,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    advance: Callable[[int], None] = lambda rows: None,
) -> CandidateSplit:
    """Tokenize each pair of a query and one of its documents, and write them to a folder.

    Args:
        table: Columns ``id``, those of ``task.text`` and, unless it is unknown, ``label``, as
            :mod:`qexp.data.sources.reranking_rows` returns them. Where documents are texts and not lists, a
            row has one.
        task: Text columns and ``max_length`` (tokens of a pair, special tokens included).
        tokenizer: Fast (Rust) tokenizer; its settings are restored.
        folder: Folder for one ``.npy`` file per array; created if needed.
        advance: Progress callback, called with the number of pairs done since its last call.

    Returns:
        The pairs, memory-mapped; in one that is too long, the longer text is cut first.

    Raises:
        ModelError: The tokenizer is not a fast one.
        ConfigError: ``task.max_length`` exceeds the maximum length of the model.
    """
    query, document = task.text
    counts = _counts(table.column(document))
    rows = from_numpy(np.repeat(np.arange(table.num_rows), counts))
    labels = np.zeros(len(rows))
    if "label" in table.column_names:
        of_rows = table.column("label").to_pylist()
        labels = np.fromiter(chain.from_iterable(of_rows), np.float64, len(rows))
    pairs = pa.table(
        {
            "id": table.column("id").take(rows),
            query: table.column(query).take(rows),
            document: _documents(table.column(document)),
            "label": from_numpy(labels),
        }
    )
    tokenize(pairs, _in_pairs(task), tokenizer=tokenizer, folder=folder, advance=advance)
    np.save(folder / "starts.npy", np.cumsum([0, *counts], dtype=np.int64))
    np.save(folder / "query_ids.npy", to_numpy(table.column("id")).astype(np.int64))
    return CandidateSplit.load(folder)


def _counts(column: pa.ChunkedArray) -> Array:
    """Return the number of documents of each row, int64 [rows]."""
    if is_text(column.type):
        return np.ones(len(column), np.int64)
    counts = [np.diff(np.asarray(chunk.offsets)) for chunk in column.chunks]
    return np.concatenate([np.zeros(0, np.int64), *counts]).astype(np.int64)


def _documents(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the documents of all rows, one behind the other."""
    if is_text(column.type):
        return column
    return pa.chunked_array([chunk.flatten() for chunk in column.chunks], pa.string())


def _in_pairs(task: RerankingTask) -> TextTask:
    """Return a regression of pairs of texts, whose tokens are those of this task."""
    return TextTask(
        kind="regression",
        name=task.name,
        text=task.text,
        metrics=("pearson",),
        max_length=task.max_length,
        evaluation=task.evaluation,
    )
