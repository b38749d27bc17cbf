"""Check that a model has rows of its tables for all tokens of the prepared rows."""

from __future__ import annotations

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from qexp.artifacts.types import Tokens
from qexp.config import CORPUS, RetrievalTask, Task, TranslationTask
from qexp.errors import ModelError


def check_fit(model: PreTrainedModel, tokens: Tokens, task: Task) -> None:
    """Check that every token id has an embedding, and every place in a row a position.

    Translations are left out: their positions may be sinusoidal, and are computed for any length.

    Raises:
        ModelError: An id lies outside the table, such as that of a token that was added to the tokenizer
            only, or a row is longer than the model has positions.
    """
    if isinstance(task, TranslationTask):
        return
    rows, places = _rows(model), positions(model)
    documents = [CORPUS] if isinstance(task, RetrievalTask) else []
    for split in sorted({task.train, *task.evaluation.values(), *documents}):
        folder = tokens.split(split)
        if not (folder / "ids.npy").is_file():
            continue
        ids, offsets = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ids", "offsets"))
        largest, longest = int(ids.max(initial=0)), int(np.diff(offsets).max(initial=0))
        if rows is not None and largest >= rows:
            raise ModelError(
                f"model.name: the tokenizer gives id {largest} in {split!r}, {type(model).__name__} has "
                f"embeddings for 0 to {rows - 1}: tokens were added to the tokenizer only; save the model "
                "again after model.resize_token_embeddings(len(tokenizer))"
            )
        if places is not None and longest > places:
            raise ModelError(
                f"task.max_length={task.max_length}: a row of {split!r} has {longest} tokens, "
                f"{type(model).__name__} has positions for {places}; set task.max_length={places}"
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


def _rows(model: PreTrainedModel) -> int | None:
    table = model.get_input_embeddings()
    return table.num_embeddings if isinstance(table, nn.Embedding) else None
