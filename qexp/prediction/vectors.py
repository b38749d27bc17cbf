"""Predictions of tasks whose model makes a vector of each text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import CORPUS, BiEncoderTask, EmbeddingTask, RetrievalTask
from qexp.data.batches import ProgressOfRows
from qexp.data.metrics.corpus_ranking import FIRST, rank
from qexp.data.metrics.cosines import cosines
from qexp.data.tokenization.retrieval import document_ids
from qexp.data.tokenization.texts import TokenSplit
from qexp.errors import ConfigError
from qexp.prediction.engine_logits import engine_logits
from qexp.prediction.tokenized_rows import BROKEN, Columns, Move, TokenizedRows

if TYPE_CHECKING:
    from qexp.tasks.base import Array

FLOATS = pa.list_(pa.float32())


def predict_similarities(task: EmbeddingTask, rows: TokenizedRows) -> Columns:
    """Return the cosine of the two embeddings of each row."""
    done = ProgressOfRows(rows.advance, rows=1, texts=2)
    pairs = _vectors(rows, rows.tokens.split(rows.split), done)
    broken = ~np.isfinite(pairs).reshape(len(pairs) // 2, -1).all(axis=1)
    rows.facts[BROKEN] += int(broken.sum())
    return {"prediction": pa.array(cosines(pairs[::2], pairs[1::2]), mask=broken)}


def predict_rankings(task: RetrievalTask, rows: TokenizedRows) -> Columns:
    """Return the first documents of the run's corpus for each query, best first, and their cosines.

    Raises:
        ConfigError: There is no corpus, as in a published folder.
    """
    folder = rows.of_run.split(CORPUS)
    if not folder.is_dir():
        raise ConfigError(
            f"task={task.name}: a published folder holds no corpus to rank; name the run, or take vectors of "
            "the rows with --vectors"
        )
    if CORPUS not in rows.embedded:
        rows.embedded[CORPUS] = _vectors(rows, folder, advance=lambda *_: None)
    vectors, broken = _row_vectors(rows)
    ids, without = document_ids(folder), [None] * len(vectors)
    found = rank(vectors, rows.embedded[CORPUS], ids, task.top_k, without=without)
    firsts: dict[str, tuple[Sequence[Any], pa.DataType]] = {
        "prediction": (found.documents, pa.list_(pa.string())),
        "score": (found.scores, FLOATS),
    }
    return {
        name: pa.array(
            [None if lost else row[:FIRST] for row, lost in zip(rows_of, broken, strict=True)], kind
        )
        for name, (rows_of, kind) in firsts.items()
    }


def _vectors(rows: TokenizedRows, folder: Path, advance: Move) -> Array:
    """Return the vectors of the texts of a tokenized split, float32 [texts, D]."""
    split = TokenSplit.load(folder)
    pad_id, size = rows.tokens.pad_id, rows.batch_size
    if rows.engine is not None:
        return engine_logits(rows.engine, split, pad_id=pad_id, advance=advance, batch_size=size)
    from qexp.models.inference import split_logits

    return split_logits(rows.run, split, None, pad_id=pad_id, advance=advance, batch_size=size)


def _row_vectors(rows: TokenizedRows) -> tuple[Array, Array]:
    """Return the vectors of the rows, and which of them are not finite, which are counted."""
    vectors = _vectors(rows, rows.tokens.split(rows.split), rows.advance)
    broken = np.asarray(~np.isfinite(vectors).all(axis=1))
    rows.facts[BROKEN] += int(broken.sum())
    return vectors, broken


def predict_vectors(task: BiEncoderTask, rows: TokenizedRows) -> Columns:
    """Return the vector of the only text of each row."""
    vectors, broken = _row_vectors(rows)
    column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1], mask=pa.array(broken))
    return {"embedding": column.cast(FLOATS)}
