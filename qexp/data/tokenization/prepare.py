"""Rows to what trainings and evaluations read, for each kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import QuestionTask, Task, TextTask, TranslationTask
from qexp.data.tokenization.pairs import tokenize_pairs
from qexp.data.tokenization.references import write_reading
from qexp.data.tokenization.texts import tokenize
from qexp.data.tokenization.windows import Windowing, tokenize_questions

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


def prepare_questions(
    table: pa.Table,
    task: QuestionTask,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    split: str,
    move: Move,
) -> dict[str, Any]:
    """Windows, how many questions were cut, and how many rows were left out, by reason.

    Where answers lie is looked up in the split that is trained on; what is evaluated keeps its contexts and
    right answers.
    """
    trained = split == task.train
    form = Windowing(task.max_length, task.doc_stride, task.max_question)
    windows = tokenize_questions(table, form, tokenizer, folder, answers=trained, move=move)
    if split in task.evaluation.values():
        write_reading(table, folder)
    skipped = {each.reason: each.rows for each in windows.skipped}
    return {"windows": len(windows), "cut_questions": windows.cut_questions, "skipped": skipped}


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


PREPARE: Mapping[type[Task], Preparation] = {
    QuestionTask: prepare_questions,
    TextTask: prepare_texts,
    TranslationTask: prepare_pairs,
}
"""By class of task."""
