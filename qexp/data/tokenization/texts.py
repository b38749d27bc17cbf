"""Tokenization of texts and pairs of texts, stored as flat arrays in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import MultiLabelTask, TextTask
from qexp.data.arrow import indicators, to_numpy
from qexp.data.tokenization.npy import GrowingArray
from qexp.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

ROWS_PER_CALL = 1024
"""Rows that are tokenized at once: enough for many threads, few enough for memory."""

Array = np.ndarray[Any, Any]
_ARRAYS = ("ids", "types", "offsets", "labels", "row_ids")


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """Concatenated tokens of the rows of one split; arrays may be memory-mapped and read-only.

    Attributes:
        ids: Token ids, int32 [tokens], special tokens included.
        types: Token types (segments), uint8 [tokens]; zeros if the tokenizer has none.
        offsets: Row ``r`` is ``ids[offsets[r]:offsets[r + 1]]``; int64 [rows + 1].
        labels: Class ids, int64 [rows], numbers, float32 [rows], or 1 for each label of a row and else 0,
            float32 [rows, labels].
        row_ids: Id of each row in the source, int64 [rows].
        truncated: Number of rows that were longer than ``task.max_length`` and were cut.
    """

    ids: Array
    types: Array
    offsets: Array
    labels: Array
    row_ids: Array
    truncated: int = 0

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @property
    def lengths(self) -> Array:
        """Tokens of each row, int64 [rows]."""
        return np.diff(self.offsets)

    def take(self, rows: Array) -> TokenSplit:
        """Return some rows, in the given order, as a split in memory."""
        ends = np.concatenate([[0], np.cumsum(self.lengths[rows])])
        places = np.concatenate([np.arange(*self.offsets[row : row + 2]) for row in rows])
        ids, types = self.ids[places], self.types[places]
        return TokenSplit(ids, types, ends, labels=self.labels[rows], row_ids=self.row_ids[rows])

    def save(self, folder: Path) -> None:
        """Write the arrays as :meth:`load` reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*_ARRAYS, "truncated"):
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Memory-map the arrays that :func:`tokenize` wrote; pages are read on access."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        return cls(**arrays, truncated=int(np.load(folder / "truncated.npy")))


def tokenize(
    table: pa.Table,
    task: TextTask | MultiLabelTask,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    advance: Callable[[int], None] = lambda rows: None,
) -> TokenSplit:
    """Tokenize every row and write it to a folder; in a pair that is too long, the longer text is cut first.

    Ids and types are those of ``tokenizer(*texts, truncation="longest_first", max_length=...)``, but computed
    by the underlying Rust tokenizer on all its threads. They are written in parts: memory holds the tokens of
    :data:`ROWS_PER_CALL` rows, whatever the size of the table.

    Args:
        table: Columns ``id``, ``task.text`` and ``label``, as
            :func:`qexp.data.sources.resolve.resolve` returns them.
        task: Text columns and ``max_length`` (tokens, special tokens included).
        tokenizer: Fast (Rust) tokenizer; its settings are restored.
        folder: Folder for one ``.npy`` file per array; created if needed.
        advance: Progress callback, called with the number of rows done since its last call.

    Returns:
        The split, memory-mapped.

    Raises:
        ModelError: The tokenizer is not a fast one.
        ConfigError: ``task.max_length`` exceeds the maximum length of the model.
    """
    check_tokenizer(tokenizer, task.max_length)
    folder.mkdir(parents=True, exist_ok=True)
    offsets, cut = _write_tokens(table, task, tokenizer=tokenizer, folder=folder, advance=advance)
    rest: dict[str, Array] = {
        "offsets": offsets,
        "labels": _labels(table, task),
        "row_ids": to_numpy(table["id"]).astype(np.int64),
        "truncated": np.array(cut, np.int64),
    }
    for name, array in rest.items():
        np.save(folder / f"{name}.npy", array)
    return TokenSplit.load(folder)


def _labels(table: pa.Table, task: TextTask | MultiLabelTask) -> Array:
    if isinstance(task, MultiLabelTask):
        return indicators(table["label"], task.outputs)
    return to_numpy(table["label"]).astype(np.int64 if task.kind == "classification" else np.float32)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Check that the tokenizer is a fast one and allows ``max_length`` tokens.

    Raises:
        ModelError: The tokenizer is not a fast one.
        ConfigError: ``max_length`` exceeds the maximum length of the model.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} is not a fast tokenizer; save the checkpoint with a tokenizer.json: "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    check_length(tokenizer, max_length)


def check_length(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Check that the model accepts rows of ``max_length`` tokens.

    Raises:
        ConfigError: ``max_length`` exceeds the maximum length of the model.
    """
    if max_length > tokenizer.model_max_length:
        raise ConfigError(
            f"task.max_length={max_length}: the tokenizer of this model allows "
            f"{tokenizer.model_max_length} tokens; set task.max_length={tokenizer.model_max_length} or less"
        )


def _write_tokens(
    table: pa.Table,
    task: TextTask | MultiLabelTask,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    advance: Callable[[int], None],
) -> tuple[Array, int]:
    """Write ids and types in parts; return the offsets of the rows and how many rows were cut."""
    typed = "token_type_ids" in tokenizer.model_input_names
    lengths, cut = [np.zeros(1, np.int64)], 0
    with (
        untruncated_backend(tokenizer) as backend,
        GrowingArray(folder / "ids.npy", np.int32) as ids,
        GrowingArray(folder / "types.npy", np.uint8) as types,
    ):
        direction = tokenizer.truncation_side
        backend.enable_truncation(task.max_length, strategy="longest_first", direction=direction)
        for texts in _parts(table, task):
            rows = backend.encode_batch_fast(texts)
            lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
            total = int(lengths[-1].sum())
            ids.append(flat((row.ids for row in rows), np.int32, total))
            segments = (row.type_ids if typed else repeat(0, len(row)) for row in rows)
            types.append(flat(segments, np.uint8, total))
            cut += sum(bool(row.overflowing) for row in rows)
            advance(len(rows))
    return np.cumsum(np.concatenate(lengths)), cut


def _parts(table: pa.Table, task: TextTask | MultiLabelTask) -> Iterator[list[Any]]:
    """Yield texts, or pairs of texts, of :data:`ROWS_PER_CALL` rows at a time."""
    for start in range(0, table.num_rows, ROWS_PER_CALL):
        part = table.slice(start, ROWS_PER_CALL)
        texts = [part.column(name).to_pylist() for name in task.text]
        yield texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))


def flat(rows: Iterable[Iterable[int]], dtype: type[np.generic], total: int) -> Array:
    """Concatenate the numbers of all rows, [total]."""
    return np.fromiter(chain.from_iterable(rows), dtype, total)


@contextmanager
def untruncated_backend(tokenizer: PreTrainedTokenizerBase) -> Iterator[Tokenizer]:
    """Yield the Rust tokenizer with truncation and padding disabled; restore its settings on exit."""
    rust: Tokenizer = tokenizer.backend_tokenizer
    truncation, padding, special = rust.truncation, rust.padding, rust.encode_special_tokens
    rust.no_truncation()
    rust.no_padding()
    rust.encode_special_tokens = tokenizer.split_special_tokens
    try:
        yield rust
    finally:
        rust.enable_truncation(**truncation) if truncation else rust.no_truncation()
        rust.enable_padding(**padding) if padding else rust.no_padding()
        rust.encode_special_tokens = special
