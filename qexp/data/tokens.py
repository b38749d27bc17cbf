"""Texts to token ids, flat in memory and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import Task
from qexp.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS_PER_CALL = 4096
"""Rows given to the tokenizer at once: keeps its Python lists small."""

Array = np.ndarray[Any, Any]
_ARRAYS = ("ids", "types", "offsets", "labels", "row_ids")


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """The tokens of one split, all rows behind each other; arrays may be memory-mapped and read-only.

    Attributes:
        ids: Token ids, int32 [tokens], special tokens included.
        types: Token types (segments), uint8 [tokens]; zeros where the tokenizer makes none.
        offsets: Row ``r`` is ``ids[offsets[r]:offsets[r + 1]]``; int64 [rows + 1].
        labels: Class ids, int64 [rows], or numbers, float32 [rows].
        row_ids: The source's id of each row, int64 [rows].
        truncated: How many rows were longer than ``task.max_length`` and were cut.
    """

    ids: Array
    types: Array
    offsets: Array
    labels: Array
    row_ids: Array
    truncated: int = 0

    def __len__(self) -> int:
        """Rows."""
        return len(self.labels)

    @property
    def lengths(self) -> Array:
        """Tokens of each row, int64 [rows]."""
        return np.diff(self.offsets)

    def save(self, folder: Path) -> None:
        """Write one ``.npy`` file for each array into the folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        np.save(folder / "truncated.npy", np.int64(self.truncated))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map the arrays that :meth:`save` wrote; reads pages as they are needed."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        return cls(**arrays, truncated=int(np.load(folder / "truncated.npy")))


def tokenize(table: pa.Table, task: Task, tokenizer: PreTrainedTokenizerBase) -> TokenSplit:
    """Tokenize every row; of a pair that is too long, the longer text is cut first.

    Args:
        table: Columns ``id``, ``task.text`` and ``label``, as :func:`qexp.data.sources.resolve` returns them.
        task: Text columns and ``max_length`` (tokens, special ones included).
        tokenizer: A fast (Rust) tokenizer.

    Raises:
        ModelError: The tokenizer is not a fast one.
        ConfigError: ``task.max_length`` is above what the model can take.
    """
    _check_tokenizer(task, tokenizer)
    calls = [
        _tokenize_rows(table.slice(start, ROWS_PER_CALL), task, tokenizer)
        for start in range(0, table.num_rows, ROWS_PER_CALL)
    ]
    ids, types, lengths, cut = zip(*calls, strict=True)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    labels = table.column("label").to_numpy()
    return TokenSplit(
        ids=np.concatenate(ids),
        types=np.concatenate(types),
        offsets=offsets,
        labels=labels.astype(np.int64 if task.kind == "classification" else np.float32),
        row_ids=table.column("id").to_numpy().astype(np.int64),
        truncated=sum(cut),
    )


def _check_tokenizer(task: Task, tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} is not a fast tokenizer; save the checkpoint with a tokenizer.json: "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    if task.max_length > tokenizer.model_max_length:
        raise ConfigError(
            f"task.max_length={task.max_length}: the tokenizer of this model allows "
            f"{tokenizer.model_max_length} tokens; set task.max_length={tokenizer.model_max_length} or less"
        )


def _tokenize_rows(
    table: pa.Table, task: Task, tokenizer: PreTrainedTokenizerBase
) -> tuple[Array, Array, Array, int]:
    """Flat ids and types, the length of each row, and how many rows were cut."""
    texts = [table.column(name).to_pylist() for name in task.text]
    encoded = tokenizer(
        *texts, truncation="longest_first", max_length=task.max_length, return_attention_mask=False
    )
    rows: Sequence[Sequence[int]] = encoded["input_ids"]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    total = int(lengths.sum())
    ids = np.fromiter(chain.from_iterable(rows), np.int32, total)
    types = np.zeros(total, np.uint8)
    if "token_type_ids" in encoded:
        types = np.fromiter(chain.from_iterable(encoded["token_type_ids"]), np.uint8, total)
    cut = sum(bool(encoding.overflowing) for encoding in encoded.encodings or ())
    return ids, types, lengths, cut
