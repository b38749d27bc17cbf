"""Logits and tags of words, from a function of padded batches; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.config import TokenTask
from qexp.config.token_classification import OUTSIDE
from qexp.data.batches import ArrayForwardFn, evaluation_batches, padded_words
from qexp.data.tokenization.words import IGNORED, NO_WORD, WordSplit

Array = np.ndarray[Any, Any]


def word_logits(
    forward: ArrayForwardFn,
    split: WordSplit,
    rows: int | None,
    *,
    outputs: int,
    pad_id: int,
    advance: Callable[..., None],
    batch_size: int,
) -> NDArray[np.float32]:
    """Return the logits of words, at their first tokens, float32 [words, outputs].

    Args:
        forward: Function from a padded batch to logits, [batch, longest, outputs].
        split: Tokens of all rows.
        rows: Number of rows, the first of the split; None is all.
        outputs: Number of tags.
        pad_id: Token id of padding.
        advance: Progress callback, called with the number of rows done since its last call.
        batch_size: Rows per batch.
    """
    lengths, kept = split.lengths[:rows], split.kept[:rows]
    starts = np.concatenate([[0], np.cumsum(kept)])
    logits = np.empty((starts[-1], outputs), np.float32)
    for batch in evaluation_batches(lengths, batch_size=batch_size):
        inputs = padded_words(split, batch, pad_id=pad_id)
        logits[_places(starts, kept, batch)] = forward(inputs)[inputs["labels"] != IGNORED]
        advance(len(batch))
    return logits


def tags_of(task: TokenTask, split: WordSplit, kept: Array, logits: Array) -> Array:
    """Return the predicted tags of all words of each row, [rows] tuples; words without a token are ``O``."""
    offsets = split.tag_offsets[: len(kept) + 1]
    words = split.words[: split.offsets[len(kept)]]
    places = np.repeat(offsets[:-1], kept) + words[words != NO_WORD]
    numbers = np.full(offsets[-1], len(task.labels))
    numbers[places] = logits.argmax(axis=1)
    return named(numbers, offsets, (*task.labels, OUTSIDE))


def named(numbers: Array, offsets: Array, labels: tuple[str, ...]) -> Array:
    """Return a tuple of tags for each row, objects [rows]."""
    rows, listed = np.empty(len(offsets) - 1, object), numbers[: offsets[-1]].tolist()
    rows[:] = [tuple(labels[each] for each in listed[start:end]) for start, end in pairwise(offsets.tolist())]
    return rows


def broken_rows(logits: Array, kept: Array) -> set[int]:
    """Return the rows with logits that are not finite."""
    return {*np.repeat(np.arange(len(kept)), kept)[~np.isfinite(logits).all(axis=1)].tolist()}


def _places(starts: Array, counts: Array, rows: Array) -> Array:
    """Return the places in an array of all words of the words of some rows, in their order."""
    return np.concatenate([np.arange(starts[row], starts[row] + counts[row]) for row in rows])
