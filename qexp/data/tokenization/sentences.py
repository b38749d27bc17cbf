"""Tokenization of pairs of texts that are embedded one by one.

Row ``2 r`` of a split is the first text of the pair ``r``, and row ``2 r + 1`` the second one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

from qexp.config import BiEncoderTask, EmbeddingTask, TextTask
from qexp.data.arrow import from_numpy, to_numpy
from qexp.data.tokenization.texts import TokenSplit, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = "text"


def tokenize_sentences(
    table: pa.Table,
    task: EmbeddingTask,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    advance: Callable[[int], None] = lambda rows: None,
) -> TokenSplit:
    """Tokenize each text of each row as a row of its own, and write them to a folder.

    Args:
        table: Columns ``id``, ``task.text`` and ``label``; where the second text is absent, a row has one.
        task: Text columns, prefix and ``max_length`` (tokens of a text, special tokens included).
        tokenizer: Fast (Rust) tokenizer; its settings are restored.
        folder: Folder for one ``.npy`` file per array; created if needed.
        advance: Progress callback, called with the number of texts done since its last call.

    Returns:
        The texts, memory-mapped, each with the id and the similarity of its row.

    Raises:
        ModelError: The tokenizer is not a fast one.
        ConfigError: ``task.max_length`` exceeds the maximum length of the model.
    """
    columns = [table.column(name) for name in task.text if name in table.column_names]
    order = np.arange(len(columns) * table.num_rows).reshape(len(columns), -1).T.reshape(-1)
    texts = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    ids, labels = (np.repeat(to_numpy(table.column(name)), len(columns)) for name in ("id", "label"))
    whole = pc.binary_join_element_wise(task.prefix, texts.take(from_numpy(order)), "")
    rows = pa.table({"id": from_numpy(ids), TEXT: whole, "label": from_numpy(labels)})
    return tokenize(rows, single_texts(task), tokenizer=tokenizer, folder=folder, advance=advance)


def single_texts(task: BiEncoderTask) -> TextTask:
    """Return a regression of single texts, whose tokens are those of the texts of a bi-encoder."""
    return TextTask(
        kind="regression",
        name=task.name,
        text=(TEXT,),
        metrics=("pearson",),
        max_length=task.max_length,
        evaluation=task.evaluation,
    )
