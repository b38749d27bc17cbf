"""Splits of tokens without a tokenizer, whose labels follow from their tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from qexp.artifacts.types import FACTS, Tokens
from qexp.data.tokenization.texts import TokenSplit
from qexp.data.tokenization.words import NO_WORD, WordSplit


def text_split(rows: int) -> TokenSplit:
    """Rows of 4 to 20 tokens with one of two classes."""
    lengths = np.random.default_rng(rows).integers(4, 21, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    labels = np.arange(rows) % 2
    ids = (np.repeat(labels, lengths) * 20 + np.arange(offsets[-1]) % 20 + 5).astype(np.int32)
    return TokenSplit(ids, np.zeros_like(ids, np.uint8), offsets, labels, np.arange(rows))


def word_split(rows: int) -> WordSplit:
    """Rows of 2 to 6 words of two tokens each, a special token at both ends, and one of three tags a word."""
    words = np.random.default_rng(rows).integers(2, 7, rows)
    offsets = np.concatenate([[0], np.cumsum(2 * words + 2)])
    tag_offsets = np.concatenate([[0], np.cumsum(words)])
    of_tokens = [NO_WORD if place in (0, 2 * count + 1) or place % 2 == 0 else (place - 1) // 2
                 for count in words for place in range(2 * count + 2)]  # fmt: skip
    ids = (np.arange(offsets[-1]) % 40 + 5).astype(np.int32)
    return WordSplit(
        ids,
        np.zeros_like(ids, np.uint8),
        np.array(of_tokens, np.int32),
        offsets,
        tags=np.arange(tag_offsets[-1]) % 3,
        tag_offsets=tag_offsets,
        row_ids=np.arange(rows),
    )


def written(split: Any, folder: Path, name: str = "train") -> Tokens:
    """Tokens whose train split it is."""
    tokens = Tokens(folder, "")
    split.save(tokens.split(name))
    (folder / FACTS).write_text(json.dumps({"pad_id": 0, "rows": {name: len(split)}}))
    return tokens
