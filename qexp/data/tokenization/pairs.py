"""Tokenization of sources and targets into flat arrays on disk, and collation of their batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from qexp.config import TranslationTask
from qexp.data.arrow import to_numpy
from qexp.data.tokenization.npy import GrowingArray
from qexp.data.tokenization.texts import ROWS_PER_CALL, check_length, flat

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Array = np.ndarray[Any, Any]
_ARRAYS = ("source", "source_offsets", "target", "target_offsets", "row_ids")
_REFERENCES = "references.parquet"
IGNORED = -100
"""Label of padding positions: ignored by torch's cross entropy, treated as padding by transformers."""


@dataclass(frozen=True, eq=False)
class PairSplit:
    """Concatenated tokens of the pairs of one split; arrays may be memory-mapped and read-only.

    Attributes:
        source: Token ids of the sources, int32 [tokens], special tokens included.
        source_offsets: Row ``r`` is ``source[source_offsets[r]:source_offsets[r + 1]]``; int64 [rows + 1].
        target: Token ids of the translations to predict, int32 [tokens], end token included.
        target_offsets: Offsets of rows in ``target``, like ``source_offsets``.
        row_ids: Id of each row in the data set, int64 [rows].
        folder: Folder of the arrays and of the reference texts.
    """

    source: Array
    source_offsets: Array
    target: Array
    target_offsets: Array
    row_ids: Array
    folder: Path

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.row_ids)

    @property
    def source_lengths(self) -> Array:
        """Tokens of each source, int64 [rows]."""
        return np.diff(self.source_offsets)

    @property
    def target_lengths(self) -> Array:
        """Tokens of each target, int64 [rows]."""
        return np.diff(self.target_offsets)

    @property
    def lengths(self) -> Array:
        """Sort keys of the rows, int64 [rows]: source length, then target length among equal ones."""
        targets = self.target_lengths
        return np.asarray(self.source_lengths * (targets.max(initial=0) + 1) + targets)

    @property
    def widths(self) -> Array:
        """Tokens of each row on its longer side, int64 [rows]."""
        return np.maximum(self.source_lengths, self.target_lengths)

    def references(self, rows: int | None = None) -> list[str]:
        """Return the reference translations, never cut, of the first ``rows`` rows; of all rows if None."""
        table = pq.read_table(self.folder / _REFERENCES)
        texts: list[str] = table["target"].slice(0, rows).to_pylist()
        return texts

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Memory-map the arrays that :func:`tokenize_pairs` wrote; pages are read on access."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        return cls(**arrays, folder=folder)


def tokenize_pairs(
    table: pa.Table,
    task: TranslationTask,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    advance: Callable[[int], None] = lambda rows: None,
) -> dict[str, int]:
    """Tokenize every pair and write it to a folder; each side is cut at ``task.max_length`` tokens.

    Memory holds the ids of :data:`~qexp.data.tokenization.texts.ROWS_PER_CALL` rows, whatever the size of the
    table.

    Args:
        table: Validated columns ``id``, ``task.source`` and ``task.target``.
        task: The columns, ``max_length`` (tokens, special tokens included) and ``prefix``.
        tokenizer: Tokenizer of the model; fast tokenizers use all threads.
        folder: Folder for one ``.npy`` file per array and for the reference texts; created if needed.
        advance: Progress callback, called with the number of rows done since its last call.

    Returns:
        Number of rows that were cut, by ``source`` and ``target``.

    Raises:
        ConfigError: ``task.max_length`` exceeds the maximum length of the model.
    """
    check_length(tokenizer, task.max_length)
    folder.mkdir(parents=True, exist_ok=True)
    with _Side(folder, "source", "text") as source, _Side(folder, "target", "text_target") as target:
        for start in range(0, table.num_rows, ROWS_PER_CALL):
            part = table.slice(start, ROWS_PER_CALL)
            texts = [task.prefix + text for text in part[task.source].to_pylist()]
            source.add(tokenizer, texts, task.max_length)
            target.add(tokenizer, part[task.target].to_pylist(), task.max_length)
            advance(part.num_rows)
    np.save(folder / "row_ids.npy", to_numpy(table["id"]))
    pq.write_table(pa.table({"target": table[task.target]}), folder / _REFERENCES)
    return {side.name: side.cut for side in (source, target)}


class _Side:
    """Writer of the tokens of one side of the pairs.

    Args:
        folder: Folder for the arrays.
        name: ``source`` or ``target``.
        argument: Keyword argument of tokenizers for the texts of this side.
    """

    def __init__(self, folder: Path, name: str, argument: str) -> None:
        self.folder, self.name, self.argument = folder, name, argument
        self.cut = 0
        self._lengths = [np.zeros(1, np.int64)]
        self._ids = GrowingArray(folder / f"{name}.npy", np.int32)

    def add(self, tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> None:
        """Append the tokens of some rows; texts that are too long are tokenized again with truncation."""
        rows = self._encoded(tokenizer, texts)
        longer = [row for row, ids in enumerate(rows) if len(ids) > max_length]
        if longer:
            again = [texts[row] for row in longer]
            cut = self._encoded(tokenizer, again, truncation=True, max_length=max_length)
            for row, ids in zip(longer, cut, strict=True):
                rows[row] = ids
        self.cut += len(longer)
        self._lengths.append(np.fromiter(map(len, rows), np.int64, len(rows)))
        self._ids.append(flat(rows, np.int32, int(self._lengths[-1].sum())))

    def _encoded(self, tokenizer: PreTrainedTokenizerBase, texts: list[str], **more: Any) -> list[list[int]]:
        arguments: dict[str, Any] = {self.argument: texts, "verbose": False}
        rows: list[list[int]] = tokenizer(**arguments, **more)["input_ids"]
        return rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file and write the offsets of the rows."""
        self._ids.__exit__(kind, error, trace)
        np.save(self.folder / f"{self.name}_offsets.npy", np.cumsum(np.concatenate(self._lengths)))


def collate_pairs(split: PairSplit, rows: Array, *, pad_id: int) -> dict[str, torch.Tensor]:
    """Return the tensors of a batch, each side padded on the right to its longest row.

    Args:
        split: Tokens of all rows.
        rows: Row numbers, [batch].
        pad_id: Token id of padding.

    Returns:
        ``input_ids`` and ``attention_mask``, [batch, longest source]; ``labels``, with :data:`IGNORED` as
        padding, and ``target_mask``, [batch, longest target]; all int64, masks are 1 for tokens.
    """
    import torch

    source, source_mask = _padded(split.source, split.source_offsets, rows, pad_id)
    target, target_mask = _padded(split.target, split.target_offsets, rows, IGNORED)
    return {
        "input_ids": torch.from_numpy(source),
        "attention_mask": torch.from_numpy(source_mask),
        "labels": torch.from_numpy(target),
        "target_mask": torch.from_numpy(target_mask),
    }


def _padded(tokens: Array, offsets: Array, rows: Array, fill: int) -> tuple[Array, Array]:
    """Return the padded ids and the mask of rows, int64 [batch, longest]."""
    starts = np.asarray(offsets[rows])
    lengths = offsets[np.asarray(rows) + 1] - starts
    places = np.arange(lengths.max())
    mask = places < lengths[:, None]
    ids = np.full(mask.shape, fill, np.int64)
    ids[mask] = tokens[(starts[:, None] + places)[mask]]
    return ids, mask.astype(np.int64)
