"""Tokenization of texts that are given as words, with the label of each word at its first token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import TokenTask
from qexp.data.arrow import to_numpy
from qexp.data.tokenization.npy import GrowingArray
from qexp.data.tokenization.texts import ROWS_PER_CALL, check_tokenizer, flat, untruncated_backend

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of tokens that begin no word, which PyTorch's cross entropy leaves out."""
NO_WORD = -1
"""Word of tokens that begin none."""

Array = np.ndarray[Any, Any]
_ARRAYS = ("ids", "types", "words", "offsets", "tags", "tag_offsets", "row_ids")


@dataclass(frozen=True, eq=False)
class WordSplit:
    """Concatenated tokens, and tags of words, of the rows of one split; arrays may be memory-mapped.

    Attributes:
        ids: Token ids, int32 [tokens], special tokens included.
        types: Token types (segments), uint8 [tokens]; zeros if the tokenizer has none.
        words: Number of the word, counted in its row, that a token is the first of, else :data:`NO_WORD`;
            int32 [tokens].
        offsets: Row ``r`` is ``ids[offsets[r]:offsets[r + 1]]``; int64 [rows + 1].
        tags: Number of the gold tag of every word in ``task.labels``, of lost words, too, int64 [words].
        tag_offsets: Words of row ``r`` are ``tags[tag_offsets[r]:tag_offsets[r + 1]]``; int64 [rows + 1].
        row_ids: Id of each row in the source, int64 [rows].
    """

    ids: Array
    types: Array
    words: Array
    offsets: Array
    tags: Array
    tag_offsets: Array
    row_ids: Array

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.row_ids)

    @property
    def lengths(self) -> Array:
        """Tokens of each row, int64 [rows]."""
        return np.diff(self.offsets)

    @property
    def lost(self) -> int:
        """Number of words that no token is the first of."""
        return len(self.tags) - int(self.kept.sum())

    @cached_property
    def kept(self) -> Array:
        """Number of words of each row that have a token, int64 [rows]."""
        sums = np.concatenate([[0], np.cumsum(self.words != NO_WORD)])
        return np.asarray(np.diff(sums[self.offsets]))

    def labels(self, tokens: Array) -> Array:
        """Return the gold tag of each token that begins a word, else :data:`IGNORED`, int64 [chosen].

        Args:
            tokens: Places of tokens in the split, int64 [chosen].
        """
        rows = np.searchsorted(self.offsets, tokens, side="right") - 1
        words = self.words[tokens]
        first = words != NO_WORD
        labels = np.full(len(tokens), IGNORED, np.int64)
        labels[first] = self.tags[self.tag_offsets[rows[first]] + words[first]]
        return labels

    def take(self, rows: Array) -> WordSplit:
        """Return some rows, in the given order, as a split in memory."""
        tokens, words = (_places(offsets, rows) for offsets in (self.offsets, self.tag_offsets))
        of_tokens = {name: getattr(self, name)[tokens] for name in ("ids", "types", "words")}
        ends, tag_ends = (
            np.concatenate([[0], np.cumsum(np.diff(offsets)[rows])])
            for offsets in (self.offsets, self.tag_offsets)
        )
        return WordSplit(
            **of_tokens,
            offsets=ends,
            tags=self.tags[words],
            tag_offsets=tag_ends,
            row_ids=self.row_ids[rows],
        )

    def save(self, folder: Path) -> None:
        """Write the arrays as :meth:`load` reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Memory-map the arrays that :func:`tokenize_words` wrote; pages are read on access."""
        return cls(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS})


def _places(offsets: Array, rows: Array) -> Array:
    """Return the places in a flat array of the entries of some rows, in their order."""
    return np.concatenate([np.arange(*offsets[row : row + 2]) for row in rows])


def tokenize_words(
    table: pa.Table,
    task: TokenTask,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    advance: Callable[[int], None] = lambda rows: None,
) -> tuple[WordSplit, int]:
    """Tokenize every row and write it to a folder; rows are cut at ``task.max_length`` tokens.

    Ids are those of ``tokenizer(words, is_split_into_words=True, truncation=True, max_length=...)``.

    Args:
        table: Columns ``id``, ``task.text[0]`` and, unless tags are unknown, ``label``; see
            :mod:`qexp.data.sources.tagged_rows`.
        task: Column of words, tags, and ``max_length`` (tokens, special tokens included).
        tokenizer: Fast (Rust) tokenizer; its settings are restored.
        folder: Folder for one ``.npy`` file per array; created if needed.
        advance: Progress callback, called with the number of rows done since its last call.

    Returns:
        The split, memory-mapped, and the number of rows that were cut.

    Raises:
        ModelError: The tokenizer is not a fast one.
        ConfigError: ``task.max_length`` exceeds the maximum length of the model.
    """
    check_tokenizer(tokenizer, task.max_length)
    folder.mkdir(parents=True, exist_ok=True)
    offsets, cut = _write_tokens(table, task, tokenizer=tokenizer, folder=folder, advance=advance)
    counts = [len(words) for words in table.column(task.text[0]).to_pylist()]
    rest = {
        "offsets": offsets,
        "tags": _tags(table, task.labels, sum(counts)),
        "tag_offsets": np.cumsum([0, *counts], dtype=np.int64),
        "row_ids": to_numpy(table["id"]).astype(np.int64),
    }
    for name, array in rest.items():
        np.save(folder / f"{name}.npy", array)
    return WordSplit.load(folder), cut


def _tags(table: pa.Table, labels: Sequence[str], words: int) -> Array:
    """Return the number of each word's tag; 0 where tags are unknown."""
    if "label" not in table.column_names:
        return np.zeros(words, np.int64)
    numbers = {tag: number for number, tag in enumerate(labels)}
    rows = table.column("label").to_pylist()
    return np.fromiter((numbers[tag] for row in rows for tag in row), np.int64, words)


def _write_tokens(
    table: pa.Table,
    task: TokenTask,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    advance: Callable[[int], None],
) -> tuple[Array, int]:
    """Write ids, types and words in parts; return the offsets of the rows and how many rows were cut."""
    typed = "token_type_ids" in tokenizer.model_input_names
    lengths, cut = [np.zeros(1, np.int64)], 0
    with (
        untruncated_backend(tokenizer) as backend,
        GrowingArray(folder / "ids.npy", np.int32) as ids,
        GrowingArray(folder / "types.npy", np.uint8) as types,
        GrowingArray(folder / "words.npy", np.int32) as words,
    ):
        backend.enable_truncation(task.max_length, direction="right")
        for start in range(0, table.num_rows, ROWS_PER_CALL):
            texts = table.column(task.text[0]).slice(start, ROWS_PER_CALL).to_pylist()
            rows = backend.encode_batch(texts, is_pretokenized=True)
            lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
            total = int(lengths[-1].sum())
            ids.append(flat((row.ids for row in rows), np.int32, total))
            types.append(flat((row.type_ids if typed else [0] * len(row) for row in rows), np.uint8, total))
            words.append(flat(map(_first_tokens, rows), np.int32, total))
            cut += sum(bool(row.overflowing) for row in rows)
            advance(len(rows))
    return np.cumsum(np.concatenate(lengths)), cut


def _first_tokens(row: Encoding) -> Iterator[int]:
    """Yield, for each token, the number of the word that it begins, else :data:`NO_WORD`."""
    last: int | None = None
    for word in row.word_ids:
        yield NO_WORD if word is None or word == last else word
        last = last if word is None else word
