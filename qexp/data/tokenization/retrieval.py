"""Tokenization of the documents, the queries and the texts to train on of a retrieval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from qexp.config import CORPUS, RetrievalTask
from qexp.data.arrow import from_numpy
from qexp.data.tokenization.sentences import TEXT, single_texts
from qexp.data.tokenization.texts import TokenSplit, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "ids.parquet"
"""File beside the tokens with ``_id`` of each row and, of a query, its judgments as ``label``."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Ids of queries, and their judgments.

    Attributes:
        ids: Id of each query, [queries].
        labels: Judged documents of each query, mappings with ``document`` and ``relevance``, [queries].
    """

    ids: Sequence[str]
    labels: np.ndarray[Any, Any]


def tokenize_retrieval(
    table: pa.Table,
    task: RetrievalTask,
    tokenizer: PreTrainedTokenizerBase,
    *,
    folder: Path,
    split: str,
    advance: Callable[[int], None] = lambda rows: None,
) -> TokenSplit:
    """Tokenize texts behind their prefixes, and write them, their ids and their judgments to a folder.

    Args:
        table: Columns of :func:`qexp.data.sources.retrieval_rows.joined`.
        task: Prefixes and ``max_length`` (tokens of a text, special tokens included).
        tokenizer: Fast (Rust) tokenizer; its settings are restored.
        folder: Folder for one ``.npy`` file per array; created if needed.
        split: ``corpus``, or the name of a split.
        advance: Progress callback, called with the number of texts done since its last call.

    Raises:
        ModelError: The tokenizer is not a fast one.
        ConfigError: ``task.max_length`` exceeds the maximum length of the model.
    """
    if "is_query" in table.column_names:
        is_query = pc.equal(table["is_query"], 1)
    else:
        is_query = pa.scalar(split != CORPUS)
    prefix = pc.if_else(is_query, task.query_prefix, task.document_prefix)
    rows = pa.table(
        {
            "id": table["id"],
            TEXT: pc.binary_join_element_wise(prefix, table["text"], ""),
            "label": from_numpy(np.zeros(table.num_rows, np.float32)),
        }
    )
    tokens = tokenize(rows, single_texts(task), tokenizer=tokenizer, folder=folder, advance=advance)
    if kept := [name for name in ("_id", "label") if name in table.column_names]:
        pq.write_table(table.select(kept), folder / FILE)
    return tokens


def document_ids(folder: Path) -> list[str]:
    """Return the id of each document of the corpus, from the folder of its tokens."""
    ids: list[str] = pq.read_table(folder / FILE, columns=["_id"])["_id"].to_pylist()
    return ids


def judgments(folder: Path, rows: int | None) -> Judged:
    """Return ids and judgments of the first ``rows`` queries of a split, or of all if None."""
    table = pq.read_table(folder / FILE).slice(0, rows)
    labels = np.empty(table.num_rows, object)
    labels[:] = table["label"].to_pylist()
    return Judged(table["_id"].to_pylist(), labels)
