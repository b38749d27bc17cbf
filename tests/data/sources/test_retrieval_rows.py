"""Tests of the rows of a retrieval: BEIR's files, those of the hub, SQuAD, and what is refused or told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from qexp.config import Data, RetrievalTask
from qexp.data.sources.resolve import SourceRows, resolve
from qexp.errors import DataError
from tests.conftest import experiment
from tests.support.corpora import CORPUS, QUERIES, write_beir, write_hub
from tests.support.row_files import write_parquet


def rows_of(folder: Path, *words: str, **data: Any) -> SourceRows:
    task = experiment("task=retrieval", f"data.path={folder}", *words).task
    assert isinstance(task, RetrievalTask)
    return resolve(Data(source="local", path=str(folder), **data), task)


def judged(rows: SourceRows, split: str = "test") -> dict[str, dict[str, int]]:
    table = rows.splits[split].to_pylist()
    return {row["_id"]: {each["document"]: each["relevance"] for each in row["label"]} for row in table}


def test_beirs_files(tmp_path: Path) -> None:
    rows = rows_of(write_beir(tmp_path / "mine"))
    assert rows.task.name == "mine"
    corpus = rows.splits["corpus"]
    assert corpus["_id"].to_pylist() == CORPUS["_id"]
    joined = ["Cats a cat sleeps", "the old dog", "Birds a bird sees the cat", "two men"]
    assert corpus["text"].to_pylist() == joined
    assert judged(rows) == {"q1": {"d1": 2, "d3": 1}, "q2": {"d2": 1}}
    train = rows.splits["train"]
    assert train["text"].to_pylist() == [*joined, "what sees a bird"]
    assert train["is_query"].to_pylist() == [0, 0, 0, 0, 1]
    assert any("2 of 4 queries" in each for each in rows.statements)


def test_the_hubs_files_hold_the_same(tmp_path: Path) -> None:
    rows = rows_of(write_hub(tmp_path))
    assert judged(rows) == {"1": {"d1": 2, "d3": 1}, "2": {"d2": 1}}
    assert rows.splits["train"].num_rows == 5


def test_without_judgments_of_a_train_split_documents_alone_are_read(tmp_path: Path) -> None:
    rows = rows_of(write_beir(tmp_path / "mine", train=None))
    assert rows.splits["train"]["is_query"].to_pylist() == [0, 0, 0, 0]
    assert any("qrels/train is absent" in each for each in rows.statements)


def test_queries_that_are_evaluated_are_not_trained_on(tmp_path: Path) -> None:
    train = {"query-id": ["q3", "q1"], "corpus-id": ["d3", "d2"], "score": [1, 1]}
    rows = rows_of(write_beir(tmp_path / "mine", train=train))
    assert "who sleeps" not in rows.splits["train"]["text"].to_pylist()


def test_ids_count_and_so_does_the_title(tmp_path: Path) -> None:
    folders = [
        write_beir(tmp_path / "a"),
        write_beir(tmp_path / "b", corpus={"title": ["Dogs", "", "Birds", ""]}),
        write_beir(tmp_path / "c", queries={"_id": ["q1", "q2", "q3", "q9"]}),
        write_beir(tmp_path / "d", corpus={"_id": ["d1", "d2", "d3", "d9"]}),
    ]
    marks = [rows_of(folder).fingerprint for folder in folders]
    assert len({marks[0], marks[1], marks[3]}) == 3
    assert marks[2] == marks[0], "a query without judgments is no row"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"corpus": None}, "no file of split 'corpus'"),
        ({"queries": None}, "no file of split 'queries'"),
        ({"test": None}, "no file of split 'qrels/test'"),
        ({"corpus": {"_id": ["d1", "d1", "d3", "d4"]}}, r"corpus\.jsonl: column '_id'.*'d1'.*earlier row"),
        ({"queries": {"_id": ["q1", "q1", "q3", "q4"]}}, r"queries\.jsonl: column '_id'.*'q1'"),
        ({"corpus": {"text": ["a", None, "b", "c"]}}, "column 'text'"),
        ({"test": {"score": ["high", 1, 1]}}, r"column 'score'.*'high'.*integer"),
        ({"test": {"score": [0.5, 1, 1]}}, r"column 'score'.*'0\.5'"),
        ({"test": {"corpus-id": ["d1", "d1", "d2"]}}, "have relevance 1 here and 2 before"),
        ({"test": {"corpus-id": ["d1", "d7", "d2"]}}, r"unknown: d7 \(33 % of 3\).*data\.max_skipped"),
        ({"test": {"query-id": ["q1", "q7", "q2"]}}, r"query of the judgment is unknown: q7"),
        ({"queries": {"text": ["who", " ", "a", "b"]}}, r"query of the judgment has no text: q2"),
        ({"queries": {"text": [1, 2, 3, 4]}}, "column 'text'"),
    ],
)
def test_what_is_refused(
    changes: Mapping[str, Mapping[str, Sequence[Any]] | None], part: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=part) as raised:
        rows_of(write_beir(tmp_path / "mine", **changes))
    assert "\n" not in str(raised.value)


def test_unknown_ids_may_be_allowed_and_are_told(tmp_path: Path) -> None:
    rows = rows_of(write_beir(tmp_path / "mine", test={"corpus-id": ["d1", "d7", "d2"]}), max_skipped=0.5)
    assert judged(rows) == {"q1": {"d1": 2}, "q2": {"d2": 1}}
    assert any("unknown: d7" in note for note in rows.notes)


def test_documents_without_text_are_told(tmp_path: Path) -> None:
    rows = rows_of(write_beir(tmp_path / "mine", corpus={"text": ["a", "", "b", "c"]}))
    assert any("1 documents have no text, such as d2" in note for note in rows.notes)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"columns": {"text": "body"}}, r"data\.columns"),
        ({"separator": ","}, r"data\.separator"),
    ],
)
def test_settings_of_other_files(data: dict[str, Any], part: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=part):
        rows_of(write_beir(tmp_path / "mine"), **data)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "mine")
    with pytest.raises(DataError, match="several tables"):
        rows_of(folder / "corpus.jsonl")


def test_the_hub_has_no_sets_of_this_layout() -> None:
    task = experiment("task=retrieval", "data.path=x").task
    with pytest.raises(DataError, match=r"data\.path=DIR"):
        resolve(Data(source="hub"), task)


def squad(folder: Path) -> Path:
    for split, mark in (("train", "t"), ("validation", "v")):
        columns = {
            "id": [f"{mark}{number}" for number in range(4)],
            "question": [f"which {mark} {number}" for number in range(4)],
            "context": [f"{mark} one", f"{mark} two", f"{mark} one", f"{mark} three"],
        }
        (folder / "squad").mkdir(parents=True, exist_ok=True)
        write_parquet(folder / "squad" / f"{split}.parquet", columns)
    return folder


def test_squads_paragraphs_are_the_corpus_and_each_question_has_its_own(tmp_path: Path) -> None:
    task = experiment("task=squad_retrieval").task
    rows = resolve(Data(source="auto", root=str(squad(tmp_path))), task)
    corpus = dict(zip(*(rows.splits["corpus"][name].to_pylist() for name in ("_id", "text")), strict=True))
    assert list(corpus.values()) == ["v one", "v two", "v three"]
    found = judged(rows, "squad/validation")
    assert {query: [corpus[each] for each in own] for query, own in found.items()} == {
        "v0": ["v one"], "v1": ["v two"], "v2": ["v one"], "v3": ["v three"],
    }  # fmt: skip
    train = rows.splits["squad/train"]
    assert train["text"].to_pylist()[:3] == ["t one", "t two", "t three"]
    assert train["is_query"].to_pylist() == [0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("name", ["retrieval", "squad_retrieval"])
def test_generated_rows(name: str) -> None:
    made = experiment(f"task={name}", "data=sample")
    rows = resolve(made.data, made.task)
    corpus = set(rows.splits["corpus"]["_id"].to_pylist())
    (split,) = made.task.evaluation.values()
    assert all(set(own) <= corpus for own in judged(rows, split).values())
    evaluated = set(rows.splits[split]["text"].to_pylist())
    seen = rows.splits[made.task.train]
    queries = [row["text"] for row in seen.to_pylist() if row["is_query"]]
    assert queries and not evaluated & set(queries)
    assert len(QUERIES["_id"]) < rows.splits[split].num_rows
