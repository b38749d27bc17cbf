"""Reader of CoNLL files: a word and its tag in each line, and a blank line behind each sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.formats.request import Request, as_data_error
from qexp.errors import DataError

DOCUMENT = "-DOCSTART-"
"""Word of the lines that stand between documents, which belong to no sentence (CoNLL-2003)."""
_TAG = re.compile(r"O|[A-Z]-\S+")


def is_conll(path: Path) -> bool:
    """Return whether the first line of words of a text file has several columns, the last one a tag."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((values for line in file if (values := _values(line)) and values[0] != DOCUMENT), [])
    except (OSError, UnicodeDecodeError):
        return False
    return len(first) > 1 and _TAG.fullmatch(first[-1]) is not None


def read_conll(path: Path, request: Request) -> pa.Table:
    """Read sentences: lists of words from the first column, and of tags from the last one.

    The file names no columns, so these two take the names that are asked for. Columns are separated by tabs
    where a line has some, else by blanks.

    Raises:
        DataError: A line has one column only, or other columns than words and tags are asked for.
    """
    names = [*request.wanted.values()]
    if len(names) != 2 or len(request.text_names) != 1:
        raise DataError(
            f"{path}: a CoNLL file has words and tags, and no column of {', '.join(names)}; leave "
            "data.columns out, or choose task=token_classification"
        )
    with as_data_error(path, "CoNLL file", "write a word and its tag in each line"):
        sentences = list(_sentences(path))
    words, tags = ([[pair[side] for pair in each] for each in sentences] for side in (0, 1))
    lists = [pa.array(values, pa.list_(pa.string())) for values in (words, tags)]
    return pa.table(lists, names=[*request.text_names, *(set(names) - {*request.text_names})])


def _sentences(path: Path) -> Iterator[list[tuple[str, str]]]:
    sentence: list[tuple[str, str]] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            values = _values(line)
            if len(values) == 1:
                raise DataError(
                    f"{path}, line {number}: {values[0]!r} alone; each line has a word first and its tag "
                    "last, and a blank line stands between sentences"
                )
            if values and values[0] != DOCUMENT:
                sentence.append((values[0], values[-1]))
            elif sentence:
                yield sentence
                sentence = []
    if sentence:
        yield sentence


def _values(line: str) -> list[str]:
    """Return the columns of a line; none of a blank one."""
    if not line.strip():
        return []
    return [value.strip() for value in line.strip("\r\n").split("\t")] if "\t" in line else line.split()
