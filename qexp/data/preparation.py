"""Rows to what trainings and evaluations read, for each kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import Task, TextTask
from qexp.data.tokens import tokenize

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


PREPARE: Mapping[type[Task], Preparation] = {TextTask: prepare_texts}
"""By class of task."""
