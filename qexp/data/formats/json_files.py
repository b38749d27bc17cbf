"""Readers of JSON: one object in each line, an array of objects, or the official files of SQuAD."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.json as pj  # type: ignore[import-untyped, unused-ignore]

from qexp.data.formats.request import Request, as_data_error
from qexp.errors import DataError

WHOLE = 2**30
"""Most bytes that are parsed at once; a row must fit."""


def read_json_lines(path: Path, request: Request) -> pa.Table:
    """Read one object in each line; a column must have one type throughout."""
    with as_data_error(path, "file of JSON lines", "write one object in each line, a type for each column"):
        table = _read_lines(path, pj.ParseOptions())
        # Arrow takes texts for times where all look like some.
        times = [
            name for name in _present(table, request) if pa.types.is_timestamp(table.schema.field(name).type)
        ]
        if not times:
            return table
        strings = pa.schema([(name, pa.string()) for name in times])
        return _read_lines(path, pj.ParseOptions(explicit_schema=strings))


def read_json(path: Path, request: Request) -> pa.Table:
    """Read a JSON document: SQuAD's, an array of objects or such an array under ``data``; else JSON lines."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}); write the text as UTF-8") from error
    except ValueError:
        return read_json_lines(path, request)
    rows = document.get("data", [document]) if isinstance(document, Mapping) else document
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(f"{path}: {type(document).__name__}; rows are an array of objects; write it again")
    if rows and all("paragraphs" in row for row in rows):
        try:
            return pa.Table.from_pylist(list(_questions(rows)), _QUESTIONS)
        except (KeyError, TypeError, AttributeError, pa.ArrowException) as error:
            raise DataError(
                f"{path}: not the form of SQuAD's files ({type(error).__name__}: {error}): a list of "
                "articles, each with paragraphs of a context and its qas; download or write it again"
            ) from error
    with as_data_error(path, "array of rows", "write a type for each column"):
        names = dict.fromkeys(name for row in rows for name in row)
        return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


_ANSWERS = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])
_QUESTIONS = pa.schema(
    [("id", pa.string()), ("question", pa.string()), ("context", pa.string()), ("answers", _ANSWERS)]
)


def _questions(articles: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the questions of SQuAD's articles as the hub has them."""
    for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
        for question in paragraph["qas"]:
            answers = question["answers"]
            yield {
                "id": str(question["id"]),
                "question": question["question"],
                "context": paragraph["context"],
                "answers": {name: [answer[name] for answer in answers] for name in ("text", "answer_start")},
            }


def _read_lines(path: Path, parsing: pj.ParseOptions) -> pa.Table:
    size = max(2**20, min(path.stat().st_size + 1, WHOLE))
    with path.open("rb") as file:
        table = pj.read_json(file, pj.ReadOptions(use_threads=False, block_size=size), parsing)
    table.validate(full=True)  # the reader does not check that texts are UTF-8
    return table


def _present(table: pa.Table, request: Request) -> list[str]:
    return [name for name in {**request.wanted, **request.other}.values() if name in table.column_names]
