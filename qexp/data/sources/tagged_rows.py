"""Validation of rows of a token classification: lists of words with a tag each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
from pydantic import ValidationError

from qexp.config import TokenTask
from qexp.config.token_classification import OUTSIDE, described, is_tag
from qexp.config.validation_errors import explain
from qexp.data.arrow import is_text
from qexp.data.sources.label_lists import names_in_list
from qexp.data.sources.labels import listed
from qexp.data.sources.validation import ID_COLUMNS, check_columns, check_rows, row_ids
from qexp.errors import DataError

FIELDS = "data.text and data.label"
"""Fields of the experiment that select the columns, as error messages name them."""


OPTIONAL = ID_COLUMNS
"""Columns that are read where there are any."""


def columns(task: TokenTask) -> tuple[str, ...]:
    """Return the columns that are read, the tags last."""
    return (*task.text, task.label)


def texts_in(task: TokenTask) -> tuple[str, ...]:
    """Return the column of words."""
    return task.text


def split_by(task: TokenTask) -> tuple[str, ...]:
    """Return the column by which the rows of one file are divided: equal sentences stay together."""
    return task.text


def check(table: pa.Table, task: TokenTask, where: str) -> None:
    """Check that the table has rows, and each column that is read once.

    Raises:
        DataError: It has not.
    """
    check_columns(table.column_names, columns(task), where, fields=FIELDS)
    check_rows(table, where)


def completed(
    task: TokenTask, tables: Mapping[str, tuple[str, pa.Table]]
) -> tuple[TokenTask, tuple[str, ...]]:
    """Return the task with the tags that it leaves open, and a sentence on them.

    Tags are those in the schema of the train split, in its order, or else those of its rows: ``O`` first, and
    then by type.

    Raises:
        DataError: The train split has no two tags, or tags that cannot be read.
    """
    if task.labels:
        return task, ()
    where, table = tables[task.train]
    names = names_in_list(table, task.label)
    if not names:
        found = {tag for row in _tags(table, task, where) for tag in row}
        names = tuple(sorted(found, key=lambda tag: (tag != OUTSIDE, tag[2:], tag)))
    try:
        made = TokenTask.model_validate({**task.model_dump(), "labels": names})
    except ValidationError as error:
        raise DataError(f"{where}: column {task.label!r}: {explain(error)}") from error
    return made, (f"tags: {listed(made.labels)} (outputs from 0)",)


def checked(table: pa.Table, task: TokenTask, where: str) -> pa.Table:
    """Return the table in canonical form: ``id`` (int64), ``task.text[0]`` and ``label``.

    Words and labels are lists of texts, as many of the ones as of the others; labels are tags by name, so
    that the order of ``task.labels`` does not change the rows.

    Raises:
        DataError: A column or list is missing or invalid, lengths differ, or a tag is unknown.
    """
    (name,) = task.text
    words = _lists(table, name, where, "words")
    if not is_text(words.type.value_type) and not pa.types.is_null(words.type.value_type):
        raise DataError(
            f"{where}: column {name!r}: lists of {words.type.value_type}; a word is a text; cast the column"
        )
    tags, ids = _tags(table, task, where), row_ids(table, where)
    for row, (row_words, row_tags) in enumerate(zip(words.to_pylist(), tags, strict=True)):
        if not row_words or len(row_words) != len(row_tags):
            count = f"{len(row_words)} words and {len(row_tags)} tags"
            raise _bad(ids, row, f"{where}: {count}; every row has at least one word, and a tag for each")
        if unknown := sorted({*row_tags} - {*task.labels}):
            rule = f"allowed are {listed(task.labels)}; correct the row, or task.labels"
            raise _bad(ids, row, f"{where}: column {task.label!r} has the tag {unknown[0]!r}; {rule}")
    kind = pa.list_(pa.string())
    label = pa.chunked_array([pa.array(tags, kind)])
    return pa.table({"id": ids, name: words.cast(kind), "label": label})


def _bad(ids: pa.ChunkedArray, row: int, problem: str) -> DataError:
    return DataError(f"row {row} (counted from 0, id {ids[row].as_py()}) of {problem}")


def _lists(table: pa.Table, name: str, where: str, what: str) -> pa.ChunkedArray:
    """Return a column of lists without nulls.

    Raises:
        DataError: It is of another type, or a list or a value in one is null.
    """
    values, here = table.column(name), f"{where}: column {name!r}"
    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        raise DataError(
            f"{here}: its type is {values.type}, not a list of {what}; write a list for each row (JSON "
            "lines, parquet), or a CoNLL file with a word and its tag in each line"
        )
    bad = np.array([row is None or None in row for row in values.to_pylist()], bool)
    if bad.any():
        row = int(np.argmax(bad))
        raise _bad(
            row_ids(table, where), row, f"{here}: {values[row].as_py()!r}; every row has a list without gaps"
        )
    return values


def _tags(table: pa.Table, task: TokenTask, where: str) -> list[list[str]]:
    """Return the tags of each row by name.

    Raises:
        DataError: They cannot be read, or are of another form than the tags of the scheme.
    """
    values, here = _lists(table, task.label, where, "tags"), f"{where}: column {task.label!r}"
    rows: list[list[Any]] = values.to_pylist()
    names: dict[Any, str] = {each: str(each) for row in rows for each in row}
    if pa.types.is_integer(values.type.value_type):
        known = names_in_list(table, task.label) or task.labels
        if not known:
            raise DataError(
                f"{here}: integers, and no names of them in the schema; name the tags in the order of their "
                "ids, such as task.labels=[O,B-PER,I-PER]"
            )
        names = {each: known[each] if 0 <= each < len(known) else str(each) for each in names}
    wrong = {each for each, name in names.items() if not is_tag(name, task.scheme)}
    if wrong:
        row = next(number for number, tags in enumerate(rows) if wrong.intersection(tags))
        tag = next(each for each in rows[row] if each in wrong)
        raise _bad(
            row_ids(table, where),
            row,
            f"{here}: {tag!r} is no tag of task.{described(task.scheme)}; correct the row, or choose the "
            "scheme of the rows",
        )
    return [[names[each] for each in row] for row in rows]
