"""Check that a model has rows of its tables for all tokens of the prepared rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn
from transformers import PreTrainedModel

from qexp.artifacts.types import Tokens
from qexp.config import CORPUS, RetrievalTask, Task, TranslationTask
from qexp.data.tokenization.known_ids import check_id, check_ids
from qexp.errors import ModelError


def check_fit(model: PreTrainedModel, tokens: Tokens, task: Task) -> None:
    """Check that every token id has an embedding, and every place in a row a position.

    Positions of translators are left out: they may be sinusoidal, and are computed for any length.

    Raises:
        ModelError: An id lies outside the table, such as that of a token that was added to the tokenizer
            only, or a row is longer than the model has positions.
    """
    rows = _rows(model)
    if rows is not None:
        check_id(tokens.pad_id, rows, "the padding", tokens.tokenizer)
    documents = [CORPUS] if isinstance(task, RetrievalTask) else []
    for split in sorted({task.train, *task.evaluation.values(), *documents}):
        if rows is not None:
            check_ids(
                tokens.split(split),
                rows=rows,
                where=f"split {split!r}",
                tokenizer=tokens.tokenizer,
                target_rows=getattr(model.config, "decoder_vocab_size", None),
            )
        if not isinstance(task, TranslationTask):
            _check_positions(model, tokens.split(split), task)


def _check_positions(model: PreTrainedModel, folder: Path, task: Task) -> None:
    places = positions(model)
    if places is None or not (folder / "offsets.npy").is_file():
        return
    longest = int(np.diff(np.load(folder / "offsets.npy", mmap_mode="r")).max(initial=0))
    if longest > places:
        raise ModelError(
            f"task.max_length={task.max_length}: a row of {folder.name!r} has {longest} tokens, "
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
