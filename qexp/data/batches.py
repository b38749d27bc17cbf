"""Assignment of rows to batches, and collation of a batch into padded tensors.

Rows of similar length share a batch, so little compute is spent on padding; the order of batches is random.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qexp.config import BatchSize
from qexp.data.tokenization.texts import TokenSplit
from qexp.data.tokenization.windows import WindowSplit
from qexp.data.tokenization.words import IGNORED, WordSplit

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]
ArrayForwardFn = Callable[[dict[str, Array]], NDArray[np.float32]]
"""A model as a function from a padded batch of arrays to its logits."""

MEGABATCH = 50
"""Batches over which training rows are sorted by length: more saves padding, fewer shuffles better."""

EVALUATION_BATCH = 64
"""Rows, or windows, per batch of an evaluation."""


def train_epochs(
    lengths: Array, *, size: BatchSize, epochs: float, seed: int, widths: Array | None = None
) -> list[list[Array]]:
    """Return the row numbers of each batch of each epoch; of rows, ``ceil(rows / size.rows)`` batches.

    Each epoch contains every row once, in an order that depends only on ``(seed, epoch)``, so a longer
    training begins with the batches of a shorter one. A fraction of an epoch consists of its first batches.

    Args:
        lengths: Tokens of each row, [rows], by which rows that share a batch are chosen.
        size: Size of a batch. A row with more tokens than that is a batch by itself.
        epochs: Passes over the rows.
        seed: Seed of the order, not negative.
        widths: Tokens of each row that count for ``size.tokens``, [rows]; None is ``lengths``.
    """
    lengths = np.asarray(lengths)
    widths = lengths if widths is None else np.asarray(widths)
    made: list[list[Array]] = []
    for epoch in range(math.ceil(epochs)):
        rng = np.random.default_rng([seed, epoch])
        if size.tokens is None:
            made.append(_epoch(lengths, size.rows, rng))
        else:
            made.append(_epoch_by_tokens(lengths, widths, size.tokens, rng))
    last = epochs - len(made) + 1
    made[-1] = made[-1][: math.ceil(round(last * len(made[-1]), 6))]  # 1.1 - 1 is above 0.1 in binary
    return made


def _epoch(lengths: Array, batch_size: int, rng: np.random.Generator) -> list[Array]:
    order = rng.permutation(len(lengths))
    batches: list[Array] = []
    for mega in _cut(order, MEGABATCH * batch_size):
        batches += _cut(mega[np.argsort(lengths[mega], kind="stable")], batch_size)
    return [batches[i] for i in rng.permutation(len(batches))]


def _epoch_by_tokens(lengths: Array, widths: Array, tokens: int, rng: np.random.Generator) -> list[Array]:
    order = rng.permutation(len(lengths))
    megabatches = np.cumsum(widths[order]) // (MEGABATCH * tokens)
    batches: list[Array] = []
    for mega in np.split(order, np.flatnonzero(np.diff(megabatches)) + 1):
        rows = mega[np.lexsort((lengths[mega], widths[mega]))]
        batches += _filled(rows, widths[rows], tokens)
    return [batches[i] for i in rng.permutation(len(batches))]


def _filled(rows: Array, widths: Array, tokens: int) -> list[Array]:
    """Return batches of neighbouring rows, each as large as it may be; ``widths`` ascend."""
    batches, start, listed = [], 0, widths.tolist()
    while start < len(rows):
        # As widths ascend, the padded tokens of start:end do, too.
        rest = range(start + 1, len(rows))
        end = start + 1 + bisect_right(rest, tokens, key=lambda at: (at - start + 1) * listed[at])
        batches.append(rows[start:end])
        start = end
    return batches


def evaluation_batches(lengths: Array, *, batch_size: int) -> list[Array]:
    """Return the row numbers of each batch, every row once, from the shortest row to the longest."""
    return _cut(np.argsort(lengths, kind="stable"), batch_size)


def _cut(rows: Array, size: int) -> list[Array]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class TokenRows(Protocol):
    """Concatenated rows of tokens: row ``r`` is ``ids[offsets[r]:offsets[r + 1]]``."""

    @property
    def ids(self) -> Array:
        """Token ids, [tokens]."""

    @property
    def types(self) -> Array:
        """Token types, [tokens]."""

    @property
    def offsets(self) -> Array:
        """Where each row begins, and the end of the last, [rows + 1]."""


def collate(split: TokenSplit, rows: Array, *, pad_id: int, pad_type: int = 0) -> dict[str, torch.Tensor]:
    """Return the tensors of a batch: those of :func:`padded`, and ``labels``, int64 or float32 [batch]."""
    import torch

    labels = torch.from_numpy(np.array(split.labels[rows]))
    return padded(split, rows, pad_id=pad_id, pad_type=pad_type) | {"labels": labels}


def collate_windows(split: WindowSplit, rows: Array, *, pad_id: int) -> dict[str, torch.Tensor]:
    """Return the tensors of a batch of windows: those of :func:`padded`, and ``labels``, int64 [batch, 2].

    Labels are the positions of the first and the last token of the answer.
    """
    import torch

    places = np.stack([split.starts[rows], split.ends[rows]], axis=1).astype(np.int64)
    return padded(split, rows, pad_id=pad_id) | {"labels": torch.from_numpy(places)}


def collate_words(split: WordSplit, rows: Array, *, pad_id: int) -> dict[str, torch.Tensor]:
    """Return the tensors of :func:`padded_words`."""
    import torch

    arrays = padded_words(split, rows, pad_id=pad_id)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def padded_words(split: WordSplit, rows: Array, *, pad_id: int) -> dict[str, Array]:
    """Return the arrays of a batch of words: those of :func:`padded_arrays`, and ``labels``.

    They are int64 [batch, longest]. Labels stand at the first token of each word; other places have -100.
    """
    batch = padded_arrays(split, rows, pad_id=pad_id)
    labels = np.full(batch["input_ids"].shape, IGNORED, np.int64)
    for place, row in enumerate(rows):
        tokens = np.arange(split.offsets[row], split.offsets[row + 1])
        labels[place, : len(tokens)] = split.labels(tokens)
    return batch | {"labels": labels}


def padded(split: TokenRows, rows: Array, *, pad_id: int, pad_type: int = 0) -> dict[str, torch.Tensor]:
    """Return the tensors of :func:`padded_arrays`."""
    import torch

    arrays = padded_arrays(split, rows, pad_id=pad_id, pad_type=pad_type)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def padded_arrays(split: TokenRows, rows: Array, *, pad_id: int, pad_type: int = 0) -> dict[str, Array]:
    """Return the tokens of a batch, padded on the right to its longest row.

    Args:
        split: Tokens of all rows.
        rows: Row numbers, [batch].
        pad_id: Token id of padding.
        pad_type: Token type of padding.

    Returns:
        ``input_ids``, ``attention_mask`` (1 for tokens, 0 for padding) and ``token_type_ids``, all int64
        [batch, longest].
    """
    starts = np.asarray(split.offsets[rows])
    lengths = split.offsets[np.asarray(rows) + 1] - starts
    places = np.arange(lengths.max())
    mask = places < lengths[:, None]
    tokens = (starts[:, None] + places)[mask]
    ids = np.full(mask.shape, pad_id, np.int64)
    types = np.full(mask.shape, pad_type, np.int64)
    ids[mask], types[mask] = split.ids[tokens], split.types[tokens]
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": types}


class ProgressOfRows:
    """Progress callback that turns a number of texts into one of rows, of which ``texts`` make ``rows``."""

    def __init__(self, advance: Callable[..., None], rows: int, texts: int) -> None:
        self.advance, self.rows, self.texts, self.done = advance, rows, texts, 0

    def __call__(self, texts: int) -> None:
        before = self.done * self.rows // self.texts
        self.done += texts
        self.advance(self.done * self.rows // self.texts - before)
