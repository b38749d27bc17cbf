"""Check that a model has rows of its tables for all tokens of the prepared rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from qexp.artifacts.types import Tokens
from qexp.config import CORPUS, RetrievalTask, Task, TranslationTask
from qexp.data.tokenization.known_ids import check_id
from qexp.errors import ModelError


def check_fit(model: PreTrainedModel, tokens: Tokens, task: Task) -> None:
    """Check that every token id has an embedding, and every place in a row a position.

    Of a translation, both sides are checked, each with its own table.

    Raises:
        ModelError: An id lies outside the table, such as that of a token that was added to the tokenizer
            only, or a row is longer than the model has positions.
    """
    rows = _rows(model)
    if rows is not None:
        check_id(tokens.pad_id, rows, "the padding", tokens.tokenizer)
    documents = [CORPUS] if isinstance(task, RetrievalTask) else []
    for split in sorted({task.train, *task.evaluation.values(), *documents}):
        for side in _sides(model, task):
            files = [tokens.split(split) / f"{name}.npy" for name in (side.ids, side.offsets)]
            if files[0].is_file():
                ids, offsets = (np.load(file, mmap_mode="r") for file in files)
                largest, longest = int(ids.max(initial=0)), int(np.diff(offsets).max(initial=0))
                where = f"split {split!r}{f' of the {side.ids}s' if side.ids != 'ids' else ''}"
                if side.rows is not None:
                    check_id(largest, side.rows, where, tokens.tokenizer)
                if side.positions is not None and longest > side.positions:
                    raise ModelError(
                        f"task.max_length={task.max_length}: a row of {where} has {longest} tokens, "
                        f"{type(model).__name__} has positions for {side.positions}; set "
                        f"task.max_length={side.positions}"
                    )


@dataclass(frozen=True)
class _Side:
    """Tokens that one table of a model embeds."""

    ids: str
    """File of the ids, without its ending."""
    offsets: str
    rows: int | None
    """Rows of the table; None if it is unknown."""
    positions: int | None
    """Most tokens of a row; None if no table limits them."""


def _sides(model: PreTrainedModel, task: Task) -> tuple[_Side, ...]:
    if not isinstance(task, TranslationTask):
        return (_Side("ids", "offsets", _rows(model), positions(model)),)
    # Positions of Marian are sinusoidal, and computed for as many places as its configuration says.
    most = getattr(model.config, "max_position_embeddings", None)
    output = model.get_output_embeddings()
    tables = [_rows(model.get_decoder()), getattr(output, "out_features", None)]
    target = min((rows for rows in tables if rows is not None), default=None)
    return (
        _Side("source", "source_offsets", _rows(model.get_encoder()), most),
        _Side("target", "target_offsets", target, most),
    )


def positions(model: nn.Module) -> int | None:
    """Return how many tokens a model has learned positions for; None if no table limits them.

    Positions of RoBERTa and its kin begin after the row of the padding.
    """
    tables = [
        each.num_embeddings - (0 if each.padding_idx is None else each.padding_idx + 1)
        for name, each in model.named_modules()
        if isinstance(each, nn.Embedding) and name.rpartition(".")[2] == "position_embeddings"
    ]
    return min(tables, default=None)


def _rows(model: Any) -> int | None:
    table = model.get_input_embeddings()
    return table.num_embeddings if isinstance(table, nn.Embedding) else None
