"""Questions and their contexts to windows of tokens, flat in memory and on disk.

A window is a question, cut to ``max_question`` tokens, and as much of its context as fits; the next window of
the same question begins ``doc_stride`` tokens before this one ends. Questions and contexts are tokenized
apart, a context that several questions share only once, and windows are put together from them in numpy: the
same ids as from the tokenizer, which would make every window a Python object.
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

from qexp.data.sources.questions import Faults, Question, Skipped, parts
from qexp.data.tokenization.npy import GrowingArray
from qexp.data.tokenization.texts import borrowed, check_tokenizer
from qexp.data.tokenization.token_pool import Frame, TokenPool, frame_of, pool_of, ranges
from qexp.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

WINDOWS_PER_WRITE = 1024
"""Windows put together at once: few for memory, however many a long context makes."""

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
    """How windows are cut.

    Attributes:
        max_length: Most tokens of a window, special ones included.
        doc_stride: Tokens of the context that two neighbouring windows share, as in the examples of
            transformers; the first BERT gave that name to the tokens by which they differ.
        max_question: Most tokens of a question; the rest of it is cut.
    """

    max_length: int = 384
    doc_stride: int = 128
    max_question: int = 64

    def check(self, special: int) -> None:
        """See that every window, with so many special tokens, has room for new tokens of its context.

        Raises:
            ConfigError: It has not, or a number is out of range.
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
    """The windows of one split, behind each other; arrays may be memory-mapped and read-only.

    Attributes:
        ids: Token ids, int32 [tokens], special tokens included.
        types: Token types (segments), uint8 [tokens]; zeros where the tokenizer makes none.
        spans: Characters of the context that a token stands for, the first and one behind the last, int32
            [tokens, 2]; -1 and -1 for tokens of the question and special ones.
        offsets: Window ``w`` is ``ids[offsets[w]:offsets[w + 1]]``; int64 [windows + 1].
        rows: Row of the table that each window belongs to, ascending, int64 [windows].
        starts: Position in the window of the first token of the answer, int32 [windows]; 0, the first special
            token, where the answer is not whole in the window, there is none, or none was asked for.
        ends: Position of its last token, int32 [windows]; 0 likewise.
        cut_questions: Questions that were cut to ``max_question`` tokens.
        skipped: Rows that have no window, by reason.
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
        """Windows."""
        return len(self.rows)

    @property
    def lengths(self) -> Array:
        """Tokens of each window, int64 [windows]."""
        return np.diff(self.offsets)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map the arrays that :func:`tokenize_questions` wrote; reads pages as they are needed."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        arrays["spans"] = arrays["spans"].reshape(-1, 2)
        counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        kept = counts["skipped"]
        skipped = tuple(Skipped(each["reason"], each["rows"], tuple(each["first_ids"])) for each in kept)
        return cls(**arrays, cut_questions=counts["cut_questions"], skipped=skipped)


def tokenize_questions(
    table: pa.Table,
    form: Windowing,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    answers: bool,
    strict: bool = False,
    move: Callable[[int], None] = lambda rows: None,
) -> WindowSplit:
    """Cut every row into windows, into a folder.

    Windows, ids and types are those of ``tokenizer(question, context, truncation="only_second",
    stride=doc_stride, return_overflowing_tokens=True)``, but cut from the left whatever side the tokenizer
    would cut. They go to disk as they come; memory grows with the longest context, not with the rows.

    Args:
        table: As :func:`qexp.data.sources.questions.parts` takes it.
        form: Lengths.
        tokenizer: A fast (Rust) tokenizer that puts something before the question; is left as it was.
        folder: Where one ``.npy`` file for each array goes; made if need be.
        answers: Also find the tokens of each row's first answer; those whose characters overlap with it.
        strict: Raise at the first row that cannot be used, instead of skipping it.
        move: Told how many more rows are done.

    Returns:
        The windows, memory-mapped.

    Raises:
        ConfigError: ``form`` leaves no room for the context, or is above what the model can take.
        DataError: No row can be used, a column is missing, or ``strict`` and a row cannot be used.
        ModelError: The tokenizer is not a fast one, or makes no pairs of texts.
    """
    check_tokenizer(tokenizer, form.max_length)
    folder.mkdir(parents=True, exist_ok=True)
    faults = Faults(strict=strict)
    cut, done = 0, 0
    with borrowed(tokenizer) as backend, _Files(folder) as files:
        frame = frame_of(backend, typed="token_type_ids" in tokenizer.model_input_names)
        form.check(len(frame.ids))
        for part in parts(table, faults, answers=answers):
            cut += _write_part(part, backend, frame, form, files, faults)
            move(part[-1].row + 1 - done)
            done = part[-1].row + 1
        move(table.num_rows - done)
    counts = {"cut_questions": cut, "skipped": [asdict(each) for each in faults.skipped]}
    (folder / "counts.json").write_text(json.dumps(counts, indent=1), encoding="utf-8")
    if not files.windows:
        reasons = "; ".join(map(str, faults.skipped)) or "the table is empty"
        raise DataError(f"no row of {table.num_rows} can be used ({reasons}); correct the rows")
    return WindowSplit.load(folder)


class _Files:
    """The arrays of a split, growing on disk."""

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
        """Write windows of these lengths behind all earlier ones."""
        self._files["offsets"].append(self._files["ids"].length + np.cumsum(lengths))
        for name, array in arrays.items():
            self._files[name].append(array.ravel())
        self.windows += len(lengths)


def _write_part(
    part: list[Question], backend: Tokenizer, frame: Frame, form: Windowing, files: _Files, faults: Faults
) -> int:
    """Tokenize some rows and write their windows; returns how many questions were cut."""
    pool = pool_of(part, backend, frame)
    answers = pool.answer_tokens(part)
    kept = _with_tokens(part, pool, answers, faults)
    question_lengths = np.minimum(pool.question_lengths, form.max_question)
    room = form.max_length - len(frame.ids) - question_lengths
    cuts = _cut(kept, pool.context_lengths, room, form.doc_stride)
    begins, lengths = _pieces(cuts, pool, frame, question_lengths)
    places = _places(cuts, answers, lengths[:, :3].sum(1))
    rows = np.array([each.row for each in part])[cuts.questions]
    for start in range(0, len(rows), WINDOWS_PER_WRITE):
        now = slice(start, start + WINDOWS_PER_WRITE)
        tokens = ranges(begins[now].ravel(), lengths[now].ravel())
        arrays = {"ids": pool.ids[tokens], "types": pool.types[tokens], "spans": pool.spans[tokens]}
        of_windows = {"rows": rows[now], "starts": places[now, 0], "ends": places[now, 1]}
        files.append(lengths[now].sum(1), {**arrays, **of_windows})
    return int((pool.question_lengths[kept] > form.max_question).sum())


def _with_tokens(part: list[Question], pool: TokenPool, answers: Array, faults: Faults) -> Array:
    """Numbers of the questions whose context and answer have tokens; the others are faults."""
    kept = []
    for number, (first, last) in enumerate(answers.tolist()):
        if not pool.context_lengths[number]:
            faults.add(part[number].row, part[number].id, "the context has no token")
        elif first > last:
            faults.add(part[number].row, part[number].id, "the answer has no token")
        else:
            kept.append(number)
    return np.array(kept, np.int64)


@dataclass(frozen=True, eq=False)
class _Cuts:
    """Windows: of which question of a part, from which token of its context on, how many; int64 [windows]."""

    questions: Array
    firsts: Array
    lengths: Array


def _cut(kept: Array, context_lengths: Array, room: Array, stride: int) -> _Cuts:
    """Windows that are full, but for the last of each question, which ends where the context does."""
    step = room - stride
    counts = 1 + np.maximum(0, -((room - context_lengths) // step))[kept]
    questions = np.repeat(kept, counts)
    numbers = np.arange(len(questions)) - np.repeat(np.cumsum(counts) - counts, counts)
    firsts = numbers * step[questions]
    return _Cuts(questions, firsts, np.minimum(room[questions], context_lengths[questions] - firsts))


def _pieces(cuts: _Cuts, pool: TokenPool, frame: Frame, question_lengths: Array) -> tuple[Array, Array]:
    """Where in the pool the five pieces of each window begin, and their lengths, both [windows, 5]."""
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
    """Positions of the first and last token of the answer, [windows, 2]; 0 where it is not whole inside."""
    found = answers[cuts.questions] - cuts.firsts[:, None]
    inside = (answers[cuts.questions, 0] >= cuts.firsts) & (found[:, 1] < cuts.lengths)
    return np.where(inside[:, None], lead[:, None] + found, 0)
