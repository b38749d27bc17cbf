"""Tests that rows of every input format are read unchanged, and that errors name the bad ones."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.errors import DataError
from qexp.prediction.readers import READERS, InputRows

PAIR = ("sentence1", "sentence2")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")))


def jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def commas(path: Path, rows: list[dict[str, str]]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(buffer.getvalue().encode())


def tabs(path: Path, rows: list[dict[str, str]]) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(row[name] for name in rows[0]) for row in rows)]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def parquet(path: Path, rows: list[dict[str, str]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITE: dict[str, Callable[[Path, list[dict[str, str]]], None]] = {
    ".jsonl": jsonl, ".csv": commas, ".tsv": tabs, ".parquet": parquet,
}  # fmt: skip


def read(path: Path, columns: tuple[str, ...] = PAIR, *, whole: bool = False, size: int = 3) -> list[dict]:
    return [dict(row) for part in InputRows(str(path), columns, whole=whole).parts(size) for row in part]


@pytest.mark.parametrize("ending", WRITE)
@given(data=st.data())
@settings(max_examples=40)
def test_rows_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, ending: str, data: st.DataObject
) -> None:
    text = PLAIN if ending == ".tsv" else TEXT
    rows = data.draw(st.lists(st.fixed_dictionaries({"id": text, **dict.fromkeys(PAIR, text)}), min_size=1))
    path = tmp_path_factory.mktemp("rows") / f"rows{ending}"
    WRITE[ending](path, rows)
    assert read(path) == [{name: row[name] for name in PAIR} for row in rows]
    assert read(path, whole=True) == rows


def test_tabs_have_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text("sentence1\tsentence2\n\"open\tit's\n")
    assert read(path) == [{"sentence1": '"open', "sentence2": "it's"}]


def test_each_line_of_plain_text_is_a_row_also_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes("eins\r\n\r\n  zwei {\n".encode("utf-8-sig"))
    assert [row["sentence"] for row in read(path, ("sentence",))] == ["eins", "", "  zwei {"]


def test_parts_have_a_size_and_nothing_is_read_ahead(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    jsonl(path, [{"sentence": str(number)} for number in range(7)])
    with path.open("a") as file:
        file.write("{broken\n")
    parts = InputRows(str(path), ("sentence",), whole=False).parts(3)
    assert [len(next(parts)), len(next(parts))] == [3, 3]
    with pytest.raises(DataError, match=r"rows\.jsonl, line 8: not JSON"):
        next(parts)


@pytest.mark.parametrize("ending", WRITE)
def test_how_many_there_are_is_known_before(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    WRITE[ending](path, [{"sentence1": "a", "sentence2": "b"}] * 5)
    assert InputRows(str(path), PAIR, whole=False).total == 5
    assert InputRows("-", PAIR, whole=False).total is None


BAD: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b"", "a.jsonl: no rows; give at least one, with sentence1, sentence2"),
    ("a.csv", b"sentence1,sentence2\n", "no rows"),
    ("a.csv", b"", "no rows"),
    ("a.jsonl", b'{"sentence1": "x", "text": 1}\n', "line 1: no column 'sentence2'; present are"),
    ("a.csv", b"sentence1,text\nx,y\n", "no column 'sentence2'; present are sentence1, text; rename"),
    ("a.tsv", b"sentence1\nx\n", "no column 'sentence2'; present are sentence1; rename"),
    ("a.csv", b"sentence1,sentence2\nx,y,z\n", "line 2: more values than the 2 columns"),
    ("a.csv", b"sentence1,sentence2\nx\n", "line 2: 'sentence2' is None; every row needs a text"),
    ("a.csv", b'sentence1,sentence2\n"x,y\n', "cannot be read: unexpected end of data"),
    ("a.jsonl", b'{"sentence1": "x", "sentence2": 3}\n', "'sentence2' is 3; every row needs a text"),
    ("a.jsonl", b'\n["x"]\n', "line 2: list, not an object"),
    ("a.jsonl", b'{"sentence1": "x", "sentence2": "\\ud800"}\n', "half a character"),
    ("a.jsonl", b'{"sentence1": "\xff"}\n', "not UTF-8"),
    ("a.txt", b"x\n", "one text in each line, but the task reads sentence1 and sentence2"),
    ("a.parquet", b"PAR1 no", "not a readable parquet file"),
    ("a.xls", b"x", ".xls is no kind of rows; allowed are .jsonl, .csv, .tsv, .parquet, .txt, and -"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "told"), BAD)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(told)):
        read(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for ending in READERS:
        with pytest.raises(DataError, match=r"cannot be read: No such file .*; name a file"):
            read(tmp_path / f"no{ending}", ("sentence",))


def test_a_list_of_words_stands_for_a_text_where_it_may(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"tokens": ["a", "b"]}\n{"tokens": "a b"}\n{"tokens": []}\n', encoding="utf-8")
    (part,) = InputRows(str(path), ["tokens"], whole=False, lists=True).parts(8)
    assert [row["tokens"] for row in part] == [["a", "b"], "a b", []]
    with pytest.raises(DataError, match="line 1"):
        list(InputRows(str(path), ["tokens"], whole=False).parts(8))
    for bad in ('{"tokens": ["a", 1]}', '{"tokens": ["\\ud800"]}', '{"tokens": null}'):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(DataError, match="line 1"):
            list(InputRows(str(path), ["tokens"], whole=False, lists=True).parts(8))


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (("text",), "it was great: no such file; a text comes on standard input: echo 'it was great' | qexp"),
        (PAIR, """echo '{"sentence1": "…", "sentence2": "…"}' | qexp predict RUN -"""),
    ],
)
def test_a_text_in_place_of_a_file_is_told_from_a_file(columns: tuple[str, ...], told: str) -> None:
    with pytest.raises(DataError, match=re.escape(told)):
        list(InputRows("it was great", columns, whole=False).parts(8))
