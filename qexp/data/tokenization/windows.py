"""Tokenization of questions and contexts into windows, stored as flat arrays in memory and on disk.

A window holds a question, cut to ``max_question`` tokens, and as much of its context as fits; the next window
of the same question begins ``doc_stride`` tokens before this one ends. Questions and contexts are tokenized
separately, a context that several questions share only once, and windows are assembled from them in numpy.
The ids equal those of the tokenizer, which would create a Python object per window.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.skipped import COUNTS, RowErrors, Skipped, skipped_in
from qexp.data.sources.questions import Question, parts
from qexp.data.tokenization.npy import GrowingArray
from qexp.data.tokenization.texts import check_tokenizer, untruncated_backend
from qexp.data.tokenization.token_pool import Frame, TokenPool, frame_of, pool_of, ranges
from qexp.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

WINDOWS_PER_WRITE = 1024
"""Windows that are assembled at once; bounds memory, however many windows a long context has."""

Array = np.ndarray[Any, Any]
_ARRAYS: dict[str, type[np.generic]] = {
    "ids": np.int32,
    "types": np.uint8,
    "spans": np.int32,
    "offsets": np.int64,
    "rows": np.int64,
    "starts": np.int32,
    "ends": np.int32,
}


@dataclass(frozen=True)
class Windowing:
    """Sizes of windows.

    Attributes:
        max_length: Maximum number of tokens in a window, special tokens included.
        doc_stride: Tokens of the context that two neighbouring windows share, as in the examples of
            transformers; the original BERT code used the name for the tokens by which they differ.
        max_question: Maximum number of tokens in a question; longer questions are cut.
    """

    max_length: int = 384
    doc_stride: int = 128
    max_question: int = 64

    def check(self, special: int) -> None:
        """Check that every window has room for new tokens of its context beside ``special`` special tokens.

        Raises:
            ConfigError: There is no room, or a number is out of range.
        """
        if self.doc_stride < 0:
            raise ConfigError(f"doc_stride={self.doc_stride}: allowed is 0 or more; 0 is no overlap")
        if self.max_question < 1:
            raise ConfigError(f"max_question={self.max_question}: allowed is 1 or more; set max_question=64")
        least = special + self.max_question + self.doc_stride + 1
        if self.max_length < least:
            raise ConfigError(
                f"max_length={self.max_length}: {special} special tokens, max_question={self.max_question} "
                f"and doc_stride={self.doc_stride} leave no room for new tokens of the context; "
                f"set max_length={least} or more, or one of the others lower"
            )


@dataclass(frozen=True, eq=False)
class WindowSplit:
    """Concatenated windows of one split; arrays may be memory-mapped and read-only.

    Attributes:
        ids: Token ids, int32 [tokens], special tokens included.
        types: Token types (segments), uint8 [tokens]; zeros if the tokenizer has none.
        spans: Character range of each token in the context, end exclusive, int32 [tokens, 2]; -1 and -1 for
            tokens of the question and special tokens.
        offsets: Window ``w`` is ``ids[offsets[w]:offsets[w + 1]]``; int64 [windows + 1].
        rows: Row of the table that each window belongs to, ascending, int64 [windows].
        starts: Position in the window of the first token of the answer, int32 [windows]; 0, the first special
            token, if the window does not contain the whole answer, there is none, or answers were not read.
        ends: Position in the window of the last token of the answer, int32 [windows]; 0 in the same cases.
        cut_questions: Number of questions that were cut to ``max_question`` tokens.
        skipped: Rows without windows, by reason.
    """

    ids: Array
    types: Array
    spans: Array
    offsets: Array
    rows: Array
    starts: Array
    ends: Array
    cut_questions: int = 0
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.rows)

    @property
    def lengths(self) -> Array:
        """Tokens of each window, int64 [windows]."""
        return np.diff(self.offsets)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Memory-map the arrays that :func:`tokenize_questions` wrote; pages are read on access."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        arrays["spans"] = arrays["spans"].reshape(-1, 2)
        counts = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        return cls(**arrays, cut_questions=counts["cut_questions"], skipped=skipped_in(folder))


def tokenize_questions(
    table: pa.Table,
    form: Windowing,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    answers: bool,
    strict: bool = False,
    advance: Callable[[int], None] = lambda rows: None,
) -> WindowSplit:
    """Tokenize every row into windows and write them to a folder.

    Windows, ids and types are those of ``tokenizer(question, context, truncation="only_second",
    stride=doc_stride, return_overflowing_tokens=True)``, but windows run from left to right whatever the
    tokenizer's truncation side. They are written in parts; memory grows with the longest context, not with
    the number of rows.

    Args:
        table: Table as :func:`qexp.data.sources.questions.parts` takes it.
        form: Sizes of windows.
        tokenizer: Fast (Rust) tokenizer that puts a special token before the question; its settings are
            restored.
        folder: Folder for one ``.npy`` file per array; created if needed.
        answers: Whether to find the tokens whose characters overlap with each row's first answer.
        strict: Raise at the first row that cannot be used, instead of skipping it.
        advance: Progress callback, called with the number of rows done since its last call.

    Returns:
        The windows, memory-mapped.

    Raises:
        ConfigError: ``form`` leaves no room for the context, or exceeds the maximum length of the model.
        DataError: No row can be used, a column is missing, or ``strict`` is set and a row cannot be used.
        ModelError: The tokenizer is not a fast one, or does not support pairs of texts as needed.
    """
    check_tokenizer(tokenizer, form.max_length)
    folder.mkdir(parents=True, exist_ok=True)
    faults = RowErrors(strict=strict)
    cut_questions, done = 0, 0
    with untruncated_backend(tokenizer) as backend, _Files(folder) as files:
        frame = frame_of(backend, typed="token_type_ids" in tokenizer.model_input_names)
        form.check(len(frame.ids))
        for part in parts(table, faults, answers=answers):
            cut_questions += _write_part(part, backend, frame=frame, form=form, files=files, faults=faults)
            advance(part[-1].row + 1 - done)
            done = part[-1].row + 1
        advance(table.num_rows - done)
    counts = {"cut_questions": cut_questions, "skipped": [asdict(each) for each in faults.skipped]}
    (folder / COUNTS).write_text(json.dumps(counts, indent=1), encoding="utf-8")
    if not files.windows:
        reasons = "; ".join(map(str, faults.skipped)) or "the table is empty"
        raise DataError(f"no row of {table.num_rows} can be used ({reasons}); correct the rows")
    return WindowSplit.load(folder)


class _Files:
    """Arrays of a split that are written to disk in parts."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._folder = folder
        self._files: dict[str, GrowingArray] = {}
        self.windows = 0

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            for name, dtype in _ARRAYS.items():
                self._files[name] = opening.enter_context(GrowingArray(self._folder / f"{name}.npy", dtype))
            self._files["offsets"].append(np.zeros(1, np.int64))
            self._stack = opening.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def append(self, lengths: Array, arrays: dict[str, Array]) -> None:
        """Append windows of these lengths."""
        self._files["offsets"].append(self._files["ids"].length + np.cumsum(lengths))
        for name, array in arrays.items():
            self._files[name].append(array.ravel())
        self.windows += len(lengths)


def _write_part(
    part: list[Question],
    backend: Tokenizer,
    frame: Frame,
    *,
    form: Windowing,
    files: _Files,
    faults: RowErrors,
) -> int:
    """Tokenize some rows, write their windows, and return how many questions were cut."""
    pool = pool_of(part, backend, frame)
    answers = pool.answer_tokens(part)
    valid = _with_tokens(part, pool, answers, faults)
    question_lengths = np.minimum(pool.question_lengths, form.max_question)
    room = form.max_length - len(frame.ids) - question_lengths
    cuts = _cut(valid, pool.context_lengths, room, form.doc_stride)
    begins, lengths = _pieces(cuts, pool, frame, question_lengths)
    places = _places(cuts, answers, lengths[:, :3].sum(1))
    rows = np.array([each.row for each in part])[cuts.questions]
    for start in range(0, len(rows), WINDOWS_PER_WRITE):
        chunk = slice(start, start + WINDOWS_PER_WRITE)
        tokens = ranges(begins[chunk].ravel(), lengths[chunk].ravel())
        arrays = {"ids": pool.ids[tokens], "types": pool.types[tokens], "spans": pool.spans[tokens]}
        of_windows = {"rows": rows[chunk], "starts": places[chunk, 0], "ends": places[chunk, 1]}
        files.append(lengths[chunk].sum(1), {**arrays, **of_windows})
    return int((pool.question_lengths[valid] > form.max_question).sum())


def _with_tokens(part: list[Question], pool: TokenPool, answers: Array, faults: RowErrors) -> Array:
    """Return the indices of questions whose context and answer have tokens; add the others to ``faults``."""
    valid = []
    for number, (first, last) in enumerate(answers.tolist()):
        if not pool.context_lengths[number]:
            faults.add(part[number].row, part[number].id, "the context has no token")
        elif first > last:
            faults.add(part[number].row, part[number].id, "the answer has no token")
        else:
            valid.append(number)
    return np.array(valid, np.int64)


@dataclass(frozen=True, eq=False)
class _Cuts:
    """Question of each window, its first context token, and its number of those; int64 [windows] each."""

    questions: Array
    firsts: Array
    lengths: Array


def _cut(valid: Array, context_lengths: Array, room: Array, stride: int) -> _Cuts:
    """Cut contexts into windows that are full, except for the last one of each question."""
    step = room - stride
    counts = 1 + np.maximum(0, -((room - context_lengths) // step))[valid]
    questions = np.repeat(valid, counts)
    numbers = np.arange(len(questions)) - np.repeat(np.cumsum(counts) - counts, counts)
    firsts = numbers * step[questions]
    return _Cuts(questions, firsts, np.minimum(room[questions], context_lengths[questions] - firsts))


def _pieces(cuts: _Cuts, pool: TokenPool, frame: Frame, question_lengths: Array) -> tuple[Array, Array]:
    """Return the begin in the pool and the length of each window's five pieces, both [windows, 5].

    The pieces are special tokens, question, special tokens, context, special tokens.
    """
    behind = frame.before + frame.between
    begins = np.zeros((len(cuts.questions), 5), np.int64)
    begins[:, 1] = pool.question_begins[cuts.questions]
    begins[:, 2] = frame.before
    begins[:, 3] = pool.context_begins[cuts.questions] + cuts.firsts
    begins[:, 4] = behind
    lengths = np.empty_like(begins)
    lengths[:, [0, 2, 4]] = frame.before, frame.between, len(frame.ids) - behind
    lengths[:, 1], lengths[:, 3] = question_lengths[cuts.questions], cuts.lengths
    return begins, lengths


def _places(cuts: _Cuts, answers: Array, lead: Array) -> Array:
    """Return positions of the answer's first and last token, [windows, 2]; 0 if it is not whole inside."""
    positions = answers[cuts.questions] - cuts.firsts[:, None]
    inside = (answers[cuts.questions, 0] >= cuts.firsts) & (positions[:, 1] < cuts.lengths)
    return np.where(inside[:, None], lead[:, None] + positions, 0)
