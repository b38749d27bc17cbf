"""Check that a model has embeddings for all token ids of tokenized rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from qexp.errors import ModelError

IDS = ("ids", "source", "target")
"""Arrays of token ids, by the names of their files in the folder of a split."""


def check_ids(split: Path, *, rows: int, where: str, tokenizer: Path) -> None:
    """Check that every token of a split has a row in a table of embeddings.

    Args:
        split: Folder of the tokenized rows.
        rows: Rows of the table.
        where: Name of the split, for the message.
        tokenizer: Folder of the tokenizer, which names the token.

    Raises:
        ModelError: A token lies outside the table, such as one that was added to the tokenizer only.
    """
    for name in IDS:
        if (file := split / f"{name}.npy").is_file():
            check_id(int(np.load(file, mmap_mode="r").max(initial=0)), rows, where, tokenizer)


def check_id(token_id: int, rows: int, where: str, tokenizer: Path) -> None:
    """Check that a token has a row in a table of embeddings.

    Raises:
        ModelError: It has none.
    """
    if token_id < rows:
        return
    raise ModelError(
        f"model.name: {_named(token_id, tokenizer)} of {where} has id {token_id}, the model has embeddings "
        f"for 0 to {rows - 1}: tokens were added to the tokenizer only; save the model again after "
        "model.resize_token_embeddings(len(tokenizer)), or choose a tokenizer without them"
    )


def _named(token_id: int, folder: Path) -> str:
    """Return what a message calls a token, whether or not its tokenizer can be loaded and knows it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        token = tokenizer.convert_ids_to_tokens(token_id)
    except (OSError, ValueError):
        token = None
    return "a token" if token is None else f"the token {token!r}"


def embedding_rows(config: Path) -> int | None:
    """Return the rows of the table of embeddings that a ``config.json`` names, or None."""
    size = json.loads(config.read_text(encoding="utf-8")).get("vocab_size")
    return size if isinstance(size, int) else None
