"""Preparation of rows for training and evaluation, by kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import (
    EmbeddingTask,
    MultiLabelTask,
    QuestionTask,
    RerankingTask,
    RetrievalTask,
    Task,
    TextTask,
    TokenTask,
    TranslationTask,
)
from qexp.data.tokenization.candidates import tokenize_candidates
from qexp.data.tokenization.pairs import tokenize_pairs
from qexp.data.tokenization.references import write_reading
from qexp.data.tokenization.retrieval import tokenize_retrieval
from qexp.data.tokenization.sentences import tokenize_sentences
from qexp.data.tokenization.texts import tokenize
from qexp.data.tokenization.windows import Windowing, tokenize_questions
from qexp.data.tokenization.words import tokenize_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Move = Callable[[int], None]
Preparation = Callable[..., dict[str, Any]]
"""Function from a validated table, the task and the tokenizer, and by keyword the output ``folder``, the name
of the ``split`` and ``advance`` (called with the number of rows done since its last call), to facts for the
Record."""


def prepare_texts(
    table: pa.Table,
    task: TextTask | MultiLabelTask,
    tokenizer: PreTrainedTokenizerBase,
    *,
    folder: Path,
    split: str,
    advance: Move,
) -> dict[str, Any]:
    """Tokenize a table and return how many rows were cut."""
    return {"truncated": tokenize(table, task, tokenizer=tokenizer, folder=folder, advance=advance).truncated}


def prepare_questions(
    table: pa.Table,
    task: QuestionTask,
    tokenizer: PreTrainedTokenizerBase,
    *,
    folder: Path,
    split: str,
    advance: Move,
) -> dict[str, Any]:
    """Tokenize a table into windows.

    Answer positions are located only in the train split; for evaluation splits, contexts and gold answers are
    written as well.

    Returns:
        Numbers of windows and of questions that were cut, and of skipped rows by reason.
    """
    trained = split == task.train
    form = Windowing(task.max_length, task.doc_stride, task.max_question)
    windows = tokenize_questions(table, form, tokenizer, folder, answers=trained, advance=advance)
    if split in task.evaluation.values():
        write_reading(table, folder)
    skipped = {each.reason: each.rows for each in windows.skipped}
    return {"windows": len(windows), "cut_questions": windows.cut_questions, "skipped": skipped}


def prepare_pairs(
    table: pa.Table,
    task: TranslationTask,
    tokenizer: PreTrainedTokenizerBase,
    *,
    folder: Path,
    split: str,
    advance: Move,
) -> dict[str, Any]:
    """Tokenize both sides of a table and return how many rows of each were cut."""
    cut = tokenize_pairs(table, task, tokenizer=tokenizer, folder=folder, advance=advance)
    return {f"truncated_{side}": count for side, count in cut.items()}


def prepare_sentences(
    table: pa.Table,
    task: EmbeddingTask,
    tokenizer: PreTrainedTokenizerBase,
    *,
    folder: Path,
    split: str,
    advance: Move,
) -> dict[str, Any]:
    """Tokenize each text of a table by itself and return how many were cut."""
    sentences = tokenize_sentences(table, task, tokenizer=tokenizer, folder=folder, advance=advance)
    return {"truncated": sentences.truncated}


def prepare_retrieval(
    table: pa.Table,
    task: RetrievalTask,
    tokenizer: PreTrainedTokenizerBase,
    *,
    folder: Path,
    split: str,
    advance: Move,
) -> dict[str, Any]:
    """Tokenize documents, queries, or the texts to train on, and return how many were cut."""
    texts = tokenize_retrieval(table, task, tokenizer, folder=folder, split=split, advance=advance)
    return {"truncated": texts.truncated}


def prepare_words(
    table: pa.Table,
    task: TokenTask,
    tokenizer: PreTrainedTokenizerBase,
    *,
    folder: Path,
    split: str,
    advance: Move,
) -> dict[str, Any]:
    """Tokenize a table of words and return how many rows were cut, and how many words have no token."""
    words, cut = tokenize_words(table, task, tokenizer=tokenizer, folder=folder, advance=advance)
    return {"truncated": cut, "lost_words": words.lost}


def prepare_candidates(
    table: pa.Table,
    task: RerankingTask,
    tokenizer: PreTrainedTokenizerBase,
    *,
    folder: Path,
    split: str,
    advance: Move,
) -> dict[str, Any]:
    """Tokenize each pair of a table of queries with documents, and return how many were cut."""
    pairs = tokenize_candidates(table, task, tokenizer=tokenizer, folder=folder, advance=advance)
    return {"truncated": pairs.truncated}


PREPARE: Mapping[type[Task], Preparation] = {
    MultiLabelTask: prepare_texts,
    EmbeddingTask: prepare_sentences,
    QuestionTask: prepare_questions,
    RerankingTask: prepare_candidates,
    RetrievalTask: prepare_retrieval,
    TextTask: prepare_texts,
    TokenTask: prepare_words,
    TranslationTask: prepare_pairs,
}
"""Preparation by class of task."""
