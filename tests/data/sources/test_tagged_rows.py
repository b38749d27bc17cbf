"""Rows of words with tags: forms of files, open settings, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from qexp.config import TokenTask
from qexp.data.sources.resolve import SourceRows, resolve
from qexp.errors import DataError
from tests.conftest import experiment
from tests.support.row_files import write_json, write_json_lines, write_parquet, write_saved

WORDS = [["Anna", "Bell", "sleeps"], ["Rome", "is", "old"], ["it", "rains"], ["Bob", "saw", "Rome"]]
TAGS = [["B-PER", "I-PER", "O"], ["B-LOC", "O", "O"], ["O", "O"], ["B-PER", "O", "B-LOC"]]
NAMES = ("O", "B-LOC", "B-PER", "I-PER")
ROWS = {"tokens": WORDS, "ner_tags": TAGS}


def read(path: Path, *words: str) -> SourceRows:
    made = experiment("task=token_classification", f"data.path={path}", "task.name=mine", *words)
    return resolve(made.data, made.task)


def content(rows: SourceRows) -> dict[tuple[str, ...], list[str]]:
    found: dict[tuple[str, ...], list[str]] = {}
    for table in rows.splits.values():
        keys = map(tuple, table["tokens"].to_pylist())
        found |= dict(zip(keys, table["label"].to_pylist(), strict=True))
    return found


EXPECTED = dict(zip(map(tuple, WORDS), TAGS, strict=True))


def class_labels(path: Path, names: tuple[str, ...]) -> Path:
    import datasets

    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=list(names))),
        }
    )
    ids = [[names.index(tag) for tag in row] for row in TAGS]
    datasets.Dataset.from_dict({"tokens": WORDS, "ner_tags": ids}, features).save_to_disk(str(path))
    return path


def conll(path: Path) -> Path:
    sentences = (zip(words, tags, strict=True) for words, tags in zip(WORDS, TAGS, strict=True))
    lines = ["\n".join(f"{word} NN {tag}" for word, tag in sentence) for sentence in sentences]
    path.write_text("-DOCSTART- -X- O\n\n" + "\n\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_every_form_of_a_file_is_the_same_rows(tmp_path: Path) -> None:
    ids = {"tokens": WORDS, "ner_tags": [[NAMES.index(tag) for tag in row] for row in TAGS]}
    found = {
        "jsonl": read(write_json_lines(tmp_path / "a.jsonl", ROWS)),
        "json": read(write_json(tmp_path / "a.json", ROWS)),
        "parquet": read(write_parquet(tmp_path / "a.parquet", ROWS)),
        "saved": read(write_saved(tmp_path / "saved", ROWS)),
        "conll": read(conll(tmp_path / "a.conll")),
        "txt": read(conll(tmp_path / "a.txt")),
        "class labels": read(class_labels(tmp_path / "ids", NAMES)),
        "ids": read(write_json_lines(tmp_path / "ids.jsonl", ids), f"task.labels=[{','.join(NAMES)}]"),
        "renamed": read(
            write_json_lines(tmp_path / "b.jsonl", {"words": WORDS, "tags": TAGS}),
            *("data.text=words", "data.label=tags"),
        ),
    }
    for name, rows in found.items():
        assert content(rows) == EXPECTED, name
        assert (rows.fingerprint, rows.task) == (found["jsonl"].fingerprint, found["jsonl"].task), name
    assert isinstance(found["jsonl"].task, TokenTask) and found["jsonl"].task.labels == NAMES


def test_names_in_the_schema_give_the_order_and_do_not_change_the_rows(tmp_path: Path) -> None:
    order = ("B-PER", "I-PER", "B-LOC", "O")
    rows = read(class_labels(tmp_path / "ids", order))
    assert isinstance(rows.task, TokenTask) and rows.task.labels == order
    assert content(rows) == EXPECTED
    assert rows.fingerprint == read(write_json_lines(tmp_path / "a.jsonl", ROWS)).fingerprint


def with_last(words: Any, tags: Any) -> dict[str, Any]:
    ids = list(range(10, 15))
    return {"id": ids, "tokens": [*WORDS, words], "ner_tags": [*TAGS, tags]}


@pytest.mark.parametrize(
    ("words", "tags", "problem"),
    [
        (["a", "b"], ["O"], "2 words and 1 tags"),
        ([], [], "0 words"),
        (["a"], ["PER"], "'PER'"),
        (["a"], ["S-PER"], "IOB2"),
        (["a"], ["B-"], "'B-'"),
        (["a"], [None], "gaps"),
        (None, ["O"], "gaps"),
    ],
)
def test_a_bad_row_is_refused_with_its_id(words: Any, tags: Any, problem: str, tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", with_last(words, tags))
    with pytest.raises(DataError) as caught:
        read(path)
    assert problem in str(caught.value)
    assert "row 4 (counted from 0, id 14)" in str(caught.value)


def test_a_tag_that_is_none_of_the_tasks_is_refused(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(DataError, match=r"row 0 .*'I-PER'"):
        read(path, "task.labels=[O,B-LOC,B-PER]")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ({"tokens": WORDS, "ner_tags": [[0] * len(row) for row in WORDS]}, "task.labels"),
        ({"tokens": [" ".join(row) for row in WORDS], "ner_tags": TAGS}, "list of words"),
        ({"tokens": WORDS, "ner_tags": ["O"] * 4}, "list of tags"),
        ({"tokens": [[1], [2], [3], [4]], "ner_tags": [["O"], ["O"], ["O"], ["B-X"]]}, "a word is a text"),
        ({"tokens": WORDS, "ner_tags": [["O"] * len(row) for row in WORDS]}, "two tags"),
    ],
)
def test_other_columns_are_refused(rows: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        read(write_json_lines(tmp_path / "a.jsonl", rows))


def test_large_lists_are_lists(tmp_path: Path) -> None:
    kind = pa.large_list(pa.large_string())
    rows = {name: pa.array(values, kind) for name, values in ROWS.items()}
    assert content(read(write_parquet(tmp_path / "a.parquet", rows))) == EXPECTED
