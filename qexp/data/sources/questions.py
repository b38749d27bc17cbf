"""Rows of question answering, read part by part: which can be used, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.errors import DataError

ROWS_PER_CALL = 1024
"""Questions that are tokenized at once: enough for many threads, few for memory."""

CHARACTERS_PER_CALL = 2**20
"""Characters of context that are tokenized at once, unless a single context has more."""

FIRST_IDS = 5
"""Of so many skipped rows the ids are named, for each reason."""

_ROWS_READ = 256
_NOWHERE = (-1, -1)


class Question(NamedTuple):
    """A row that can be used.

    Attributes:
        row: Its number in the table.
        id: Its id in the table; its number where the table has no ids.
        question: The question, without leading white space.
        context: The text that may hold the answer.
        start: First character of the answer in the context; -1 where there is none, or none was asked for.
        end: One behind its last character; -1 likewise.
    """

    row: int
    id: str
    question: str
    context: str
    start: int
    end: int


@dataclass(frozen=True)
class Skipped:
    """Rows that were left out for one reason.

    Attributes:
        reason: What is wrong with them.
        rows: How many.
        first_ids: Ids of the first :data:`FIRST_IDS` of them.
    """

    reason: str
    rows: int
    first_ids: tuple[str, ...]

    def __str__(self) -> str:
        """A sentence for the Record."""
        more = ", ..." if self.rows > len(self.first_ids) else ""
        return f"{self.rows} rows skipped, {self.reason}: {', '.join(self.first_ids)}{more}"


class Faults:
    """Counts the rows that cannot be used, by reason.

    Args:
        strict: Raise at the first such row instead.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._found: dict[str, Skipped] = {}

    def add(self, row: int, name: str, reason: str, detail: str = "") -> None:
        """Count a row.

        Raises:
            DataError: Rows must not be skipped.
        """
        if self._strict:
            where = f"row {row} (counted from 0, id {name})"
            raise DataError(f"{where}: {reason}{detail}; correct or drop it, or allow bad rows to be skipped")
        seen = self._found.get(reason, Skipped(reason, 0, ()))
        ids = seen.first_ids if seen.rows >= FIRST_IDS else (*seen.first_ids, name)
        self._found[reason] = Skipped(reason, seen.rows + 1, ids)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was counted, in the order of the first row of each reason."""
        return tuple(self._found.values())


def parts(table: pa.Table, faults: Faults, *, answers: bool) -> Iterator[list[Question]]:
    """The usable rows in their order, as many at a time as can be tokenized at once.

    Args:
        table: Columns ``question`` and ``context`` (string); ``id``, if there is one; with ``answers``, a
            struct ``answers`` of two lists, ``text`` and ``answer_start`` (characters), of which the first
            element counts; where they are empty, the question has no answer.
        faults: Told of the other rows.
        answers: Read and check where the answers are.

    Raises:
        DataError: A column is missing or of another type, or ``faults`` is strict.
    """
    check_columns(table, answers=answers)
    part: list[Question] = []
    size = 0
    for question in _usable(table, faults, answers=answers):
        more = 0 if part and part[-1].context == question.context else len(question.context)
        if part and (len(part) >= ROWS_PER_CALL or size + more > CHARACTERS_PER_CALL):
            yield part
            part, size, more = [], 0, len(question.context)
        part.append(question)
        size += more
    if part:
        yield part


def check_columns(table: pa.Table, *, answers: bool) -> None:
    """Raise a :class:`~qexp.errors.DataError` where a column is missing or of another type."""
    for name in ("question", "context", "answers")[: 3 if answers else 2]:
        if table.column_names.count(name) != 1:
            raise DataError(
                f"question answering needs one column {name!r}; present are "
                f"{', '.join(table.column_names) or 'none'}; rename the column"
            )
        kind = table.schema.field(name).type
        fits = _is_answers(kind) if name == "answers" else _is_text(kind)
        if not fits:
            wanted = "a struct of two lists, text and answer_start" if name == "answers" else "string"
            raise DataError(f"column {name!r}: its type is {kind}, needed is {wanted}; cast it")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_answers(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    fields = {field.name: field.type for field in kind}
    if not {"text", "answer_start"} <= fields.keys():
        return False
    lists = (fields["text"], fields["answer_start"])
    if not all(pa.types.is_list(each) or pa.types.is_large_list(each) for each in lists):
        return False
    return _is_text(lists[0].value_type) and bool(pa.types.is_integer(lists[1].value_type))


def _usable(table: pa.Table, faults: Faults, *, answers: bool) -> Iterator[Question]:
    wanted = ["question", "context", *(["answers"] if answers else [])]
    names = [*wanted, *(["id"] if table.column_names.count("id") == 1 else [])]
    for row, fields in enumerate(_rows(table.select(names))):
        known = fields.get("id")
        name = str(row if known is None or isinstance(known, UnicodeDecodeError) else known)
        found: tuple[int, int] | _Fault = _text_fault(fields, wanted) or _NOWHERE
        if answers and found == _NOWHERE:
            found = _answer(fields["context"], fields["answers"])
        if isinstance(found, _Fault):
            faults.add(row, name, found.reason, found.detail)
        else:
            yield Question(row, name, fields["question"].lstrip(), fields["context"], *found)


def _rows(table: pa.Table) -> Iterator[Mapping[str, Any]]:
    """The fields of each row; in place of one with bytes that are not UTF-8, the error.

    Arrow's strings are bytes that nobody has looked at: parquet files are read without a check.
    """
    for start in range(0, table.num_rows, _ROWS_READ):
        part = table.slice(start, _ROWS_READ)
        try:
            yield from part.to_pylist()
        except UnicodeDecodeError:
            for row in range(part.num_rows):
                yield {name: _field(part.column(name), row) for name in part.column_names}


def _field(column: pa.ChunkedArray, row: int) -> Any:
    try:
        return column[row].as_py()
    except UnicodeDecodeError as error:
        return error


def _text_fault(fields: Mapping[str, Any], wanted: Sequence[str]) -> _Fault | None:
    for name in wanted:
        error = fields[name]
        if isinstance(error, UnicodeDecodeError):
            byte = f": byte 0x{error.object[error.start]:02x} at {error.start}"
            return _Fault(f"column {name!r} is not UTF-8", byte)
    for name in ("question", "context"):
        if not (fields[name] or "").strip():
            return _Fault(f"the {name} is empty")
    return None


@dataclass(frozen=True)
class _Fault:
    reason: str
    detail: str = ""


def _answer(context: str, answers: Mapping[str, Any] | None) -> tuple[int, int] | _Fault:
    """First character and end of the first answer, -1 and -1 for none; or what is wrong with it."""
    texts, starts = (answers["text"], answers["answer_start"]) if answers else (None, None)
    if texts is None or starts is None or len(texts) != len(starts):
        return _Fault("text and answer_start are not two lists of one length", f": {answers}")
    if not texts:
        return _NOWHERE
    text, start = texts[0] or "", starts[0]
    if not text.strip():
        return _Fault("the answer is empty", "; a question without answer has empty lists")
    if len(text) > len(context):
        return _Fault("the answer is longer than its context", f": {len(text)} of {len(context)} characters")
    if start is None or start < 0 or context[start : start + len(text)] != text:
        there = "" if start is None or start < 0 else context[start : start + len(text)]
        place = context.find(text)
        known = f"it begins at {place}" if place >= 0 else "it is nowhere in the context"
        detail = f"={start}: there is {there!r}, not {text!r}; {known}, counted in characters"
        return _Fault("the answer is not at answer_start", detail)
    return start, start + len(text)
