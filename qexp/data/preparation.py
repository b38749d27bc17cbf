"""Rows to what trainings and evaluations read, for each kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import Task, TextTask, TranslationTask
from qexp.data.checkpoints import Blueprint, Checkpoint
from qexp.data.pairs import tokenize_pairs
from qexp.data.tokens import tokenize
from qexp.data.vocabulary import make_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Move = Callable[[int], None]
Preparation = Callable[[pa.Table, Any, "PreTrainedTokenizerBase", Path, str, Move], dict[str, Any]]
"""A checked table, the task, the tokenizer, the folder to write into, the name of the split, and who is told
how many more rows are done, to the facts worth a word in the Record."""


def prepare_texts(
    table: pa.Table,
    task: TextTask,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    split: str,
    move: Move,
) -> dict[str, Any]:
    """Tokens, and how many rows were cut."""
    return {"truncated": tokenize(table, task, tokenizer, folder, move).truncated}


def prepare_pairs(
    table: pa.Table,
    task: TranslationTask,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    split: str,
    move: Move,
) -> dict[str, Any]:
    """Tokens of both sides, and how many of each were cut."""
    cut = tokenize_pairs(table, task, tokenizer, folder, move)
    return {f"truncated_{side}": count for side, count in cut.items()}


PREPARE: Mapping[type[Task], Preparation] = {TextTask: prepare_texts, TranslationTask: prepare_pairs}
"""By class of task."""


def tokenizer_for(
    start: Checkpoint | Blueprint, splits: Mapping[str, pa.Table], task: Task
) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer; of a model from scratch, one that is made of the train split.

    Raises:
        ModelError: The tokenizer cannot be loaded, or the checkpoint is of the wrong kind for the task.
    """
    if isinstance(start, Blueprint):
        assert isinstance(task, TranslationTask)  # Experiment sees to it
        table = splits[task.train]
        return make_tokenizer((table[task.source], table[task.target]), start.scratch.vocabulary)
    return load_tokenizer(start, decoder=isinstance(task, TranslationTask))
