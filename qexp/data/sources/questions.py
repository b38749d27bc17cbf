"""Reader of question answering rows in parts; counts the rows that cannot be used, by reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.arrow import is_text
from qexp.data.skipped import RowErrors
from qexp.errors import DataError

ROWS_PER_CALL = 1024
"""Questions that are tokenized at once: enough for many threads, few enough for memory."""

CHARACTERS_PER_CALL = 2**20
"""Characters of context that are tokenized at once, unless a single context has more."""

_ROWS_READ = 256
_NOWHERE = (-1, -1)


class Question(NamedTuple):
    """A valid row.

    Attributes:
        row: Row number in the table.
        id: Id in the table; the row number if the table has no ids.
        question: The question, without leading white space.
        context: Text that may contain the answer.
        start: First character of the answer in the context; -1 if there is none or answers are not read.
        end: End of the answer in the context, exclusive; -1 if there is none or answers are not read.
    """

    row: int
    id: str
    question: str
    context: str
    start: int
    end: int


def parts(table: pa.Table, faults: RowErrors, *, answers: bool) -> Iterator[list[Question]]:
    """Yield the valid rows in order, as many at a time as can be tokenized at once.

    Args:
        table: Columns ``question`` and ``context`` (string); ``id``, if there is one; with ``answers``, a
            struct ``answers`` of two lists, ``text`` and ``answer_start`` (characters), of which the first
            element counts; if they are empty, the question has no answer.
        faults: Counter of the other rows.
        answers: Whether to read and check the positions of answers.

    Yields:
        At most :data:`ROWS_PER_CALL` rows whose contexts have at most :data:`CHARACTERS_PER_CALL` characters,
        or a single longer context.

    Raises:
        DataError: A column is missing or of another type, or a row is invalid and ``faults`` is strict.
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
    """Raise a :class:`~qexp.errors.DataError` if a column is missing or of another type."""
    for name in ("question", "context", "answers")[: 3 if answers else 2]:
        if table.column_names.count(name) != 1:
            raise DataError(
                f"question answering needs one column {name!r}; present are "
                f"{', '.join(table.column_names) or 'none'}; rename the column"
            )
        kind = table.schema.field(name).type
        fits = _is_answers(kind) if name == "answers" else is_text(kind)
        if not fits:
            wanted = "a struct of two lists, text and answer_start" if name == "answers" else "string"
            raise DataError(f"column {name!r}: its type is {kind}, needed is {wanted}; cast it")


def _is_answers(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    fields = {field.name: field.type for field in kind}
    if not {"text", "answer_start"} <= fields.keys():
        return False
    lists = (fields["text"], fields["answer_start"])
    if not all(pa.types.is_list(each) or pa.types.is_large_list(each) for each in lists):
        return False
    return is_text(lists[0].value_type) and bool(pa.types.is_integer(lists[1].value_type))


def _usable(table: pa.Table, faults: RowErrors, *, answers: bool) -> Iterator[Question]:
    wanted = ["question", "context", *(["answers"] if answers else [])]
    names = [*wanted, *(["id"] if table.column_names.count("id") == 1 else [])]
    for row, fields in enumerate(_rows(table.select(names))):
        row_id = fields.get("id")
        name = str(row if row_id is None or isinstance(row_id, UnicodeDecodeError) else row_id)
        answer: tuple[int, int] | _RowError = _text_fault(fields, wanted) or _NOWHERE
        if answers and answer == _NOWHERE:
            answer = _answer(fields["context"], fields["answers"])
        if isinstance(answer, _RowError):
            faults.add(row, name, answer.reason, answer.detail)
        else:
            yield Question(row, name, fields["question"].lstrip(), fields["context"], *answer)


def _rows(table: pa.Table) -> Iterator[Mapping[str, Any]]:
    """Yield the fields of each row; a field that is not UTF-8 is replaced by its error.

    Arrow does not validate strings when it reads parquet files.
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


def _text_fault(fields: Mapping[str, Any], wanted: Sequence[str]) -> _RowError | None:
    for name in wanted:
        error = fields[name]
        if isinstance(error, UnicodeDecodeError):
            byte = f": byte 0x{error.object[error.start]:02x} at {error.start}"
            return _RowError(f"column {name!r} is not UTF-8", byte)
    for name in ("question", "context"):
        if not (fields[name] or "").strip():
            return _RowError(f"the {name} is empty")
    return None


@dataclass(frozen=True)
class _RowError:
    reason: str
    detail: str = ""


def _answer(context: str, answers: Mapping[str, Any] | None) -> tuple[int, int] | _RowError:
    """Return first character and end of the first answer, -1 and -1 for none; or the error of the row."""
    texts, starts = (answers["text"], answers["answer_start"]) if answers else (None, None)
    if texts is None or starts is None or len(texts) != len(starts):
        return _RowError("text and answer_start are not two lists of one length", f": {answers}")
    if not texts:
        return _NOWHERE
    text, start = texts[0] or "", starts[0]
    if not text.strip():
        return _RowError("the answer is empty", "; a question without answer has empty lists")
    if len(text) > len(context):
        return _RowError(
            "the answer is longer than its context", f": {len(text)} of {len(context)} characters"
        )
    if start is None or start < 0 or context[start : start + len(text)] != text:
        actual = "" if start is None or start < 0 else context[start : start + len(text)]
        place = context.find(text)
        position = f"it begins at {place}" if place >= 0 else "it is nowhere in the context"
        detail = f"={start}: there is {actual!r}, not {text!r}; {position}, counted in characters"
        return _RowError("the answer is not at answer_start", detail)
    return start, start + len(text)
