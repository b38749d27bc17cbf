"""Rows of rerankings: layouts of files, grouping, queries that are left out, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qexp.config import RerankingTask
from qexp.data.sources.resolve import SourceRows, resolve
from qexp.errors import DataError
from tests.conftest import experiment
from tests.support.row_files import WRITERS, write_csv, write_json_lines, write_parquet, write_tsv

QUERIES = [f"query {row}" for row in range(20)]
POSITIVE = [[f"yes {row}"] for row in range(20)]
NEGATIVE = [[f"no {row}", f"never {row}"] for row in range(20)]
LISTS = {"query": QUERIES, "positive": POSITIVE, "negative": NEGATIVE}
PAIRS: dict[str, list[Any]] = {
    "query": [query for query in QUERIES for _ in range(3)],
    "document": [text for one, other in zip(POSITIVE, NEGATIVE, strict=True) for text in (*one, *other)],
    "label": [1, 0, 0] * 20,
}


def read(path: Path, *words: str) -> SourceRows:
    made = experiment("task=reranking", f"data.path={path}", "task.name=mine", *words)
    return resolve(made.data, made.task)


def test_every_layout_and_format_is_the_same_rows(tmp_path: Path) -> None:
    found = {}
    for name, write in WRITERS.items():
        found[f"pairs {name}"] = read(write(tmp_path / f"pairs_{name}", PAIRS))
        if Path(name).suffix not in (".csv", ".tsv"):
            found[f"lists {name}"] = read(write(tmp_path / f"lists_{name}", LISTS))
    renamed = {"q": PAIRS["query"], "d": PAIRS["document"], "rel": PAIRS["label"]}
    path = write_csv(tmp_path / "renamed.csv", renamed)
    found["renamed"] = read(path, "data.text=[q,d]", "data.label=rel")
    first = next(iter(found.values()))
    for name, rows in found.items():
        assert (rows.fingerprint, rows.task) == (first.fingerprint, first.task), name
    assert isinstance(first.task, RerankingTask) and first.task.max_relevance == 1
    assert {name: table.num_rows for name, table in first.splits.items()} == {"train": 18, "validation": 2}
    row = first.splits["validation"].to_pylist()[0]
    number = row["query"].split()[1]
    assert row["document"] == [f"yes {number}", f"no {number}", f"never {number}"]
    assert row["label"] == [1, 0, 0]


def test_triplets_of_one_query_are_one_row(tmp_path: Path) -> None:
    rows = {"query": ["a", "a", "b", "c"], "positive": list("uvwx"), "negative": list("UVWX")}
    found = read(write_csv(tmp_path / "a.csv", rows))
    tables = [row for table in found.splits.values() for row in table.to_pylist()]
    (of_a,) = (row for row in tables if row["query"] == "a")
    assert of_a["document"] == ["u", "U", "v", "V"] and of_a["label"] == [1, 0, 1, 0]


def test_an_id_tells_equal_queries_apart(tmp_path: Path) -> None:
    rows = {
        "qid": [1, 1, 2, 2, 3, 3],
        "query": ["a", "a", "a", "a", "b", "b"],
        "document": list("uvwxyz"),
        "label": [2, 0, 0.5, 0, 3, 0],
    }
    found = read(write_parquet(tmp_path / "a.parquet", rows), "task.query_id=qid")
    assert sum(table.num_rows for table in found.splits.values()) == 3
    assert isinstance(found.task, RerankingTask) and found.task.max_relevance == 3
    rows["query"][1] = "other"
    with pytest.raises(DataError, match=r"column 'qid', row 1 .* another query"):
        read(write_parquet(tmp_path / "a.parquet", rows), "task.query_id=qid")


def test_queries_without_an_order_are_left_out_of_evaluation_and_told(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "train.jsonl", {name: values[:5] for name, values in LISTS.items()})
    rows = {
        "query": [*QUERIES, "none", "all", "one"],
        "positive": [*POSITIVE, [], ["a", "b"], ["a"]],
        "negative": [*NEGATIVE, ["a", "b"], [], []],
    }
    write_json_lines(tmp_path / "validation.jsonl", rows)
    with pytest.raises(DataError, match=r"data.max_skipped=0.05"):
        read(tmp_path)
    found = read(tmp_path, "data.max_skipped=0.2")
    assert found.splits["validation"].num_rows == 20
    reasons = " ".join(found.notes)
    assert all(word in reasons for word in ("no negative", "(positive)", "fewer than 2", "20", "21", "22"))
    assert any("20 queries are scored, with 60 documents" in each for each in found.statements)


def test_training_keeps_queries_that_have_no_order(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", {"query": ["a", "b"], "document": ["x", "y"], "label": ["1", "0"]})
    write_tsv(tmp_path / "validation.tsv", {name: values[:9] for name, values in PAIRS.items()})
    assert read(tmp_path).splits["train"].num_rows == 2


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"query": ["a"] * 2, "document": ["x", "y"], "label": [-1, 1]}, ["row 0", "-1", "from 0"]),
        ({"query": ["a"] * 2, "document": ["x", "y"], "label": ["yes", "no"]}, ["'label'", "number"]),
        ({"query": ["a"] * 2, "document": ["x", "y"], "label": [0, 0]}, ["no document is relevant"]),
        ({"query": ["a"] * 2, "document": ["x", None], "label": [0, 1]}, ["'document'", "row 1"]),
        ({"query": ["a"] * 2, "document": ["x", "y"], "label": [float("nan"), 1]}, ["row 0", "nan"]),
        ({"query": ["a", "b"], "positive": [["x"], ["y"]]}, ["no column 'negative'"]),
        ({"query": ["a", "b"], "positive": [[1], [2]], "negative": [[], []]}, ["list<", "lists"]),
        ({"query": ["a", "b"], "positive": [["x"], None], "negative": [["y"], []]}, ["row 1", "gaps"]),
        ({"query": ["a", "b"], "text": ["x", "y"]}, ["no column 'document'", "data.columns"]),
        ({"query": ["a", "b"], "positive": [["x", "y"]] * 2, "negative": [[], []]}, ["no negative"]),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused(rows: dict[str, list[Any]], told: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(write_parquet(tmp_path / "a.parquet", rows))
    assert all(part in str(error.value) for part in told), str(error.value)
    assert "\n" not in str(error.value)
