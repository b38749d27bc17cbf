"""Tests of the canonical form of question answering rows, and of the rows that are rejected."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qexp.config import Data
from qexp.data.sources import question_rows, resolve
from qexp.data.tokenization.references import read_reading, write_reading
from qexp.errors import DataError
from tests.conftest import experiment
from tests.support.question_rows import NONE, said, table_of

SQUAD, SQUAD_V2 = (experiment(f"task={name}").task for name in ("squad", "squad_v2"))
ROWS = [
    ("Who sees the dog?", "The cat sees the dog.", said("The cat", 0)),
    ("What does the cat see?", "The cat sees the dog.", said("the dog", 13)),
]


def test_rows_keep_ids_contexts_and_answers(tmp_path: Path) -> None:
    table = question_rows.checked(table_of(ROWS).append_column("title", [["a", "b"]]), SQUAD, "here")
    assert table.column_names == ["id", "question", "context", "answers"]
    assert table["id"].to_pylist() == ["q0", "q1"]
    write_reading(table, tmp_path)
    reading = read_reading(tmp_path, 1)
    assert reading.golds == [["The cat"]]
    assert reading.contexts.to_pylist() == ["The cat sees the dog."]


def test_rows_without_ids_are_numbered() -> None:
    table = question_rows.checked(table_of(ROWS).drop_columns(["id"]), SQUAD, "here")
    assert table["id"].to_pylist() == ["0", "1"]


def test_a_question_without_answer_belongs_to_v2_only() -> None:
    table = table_of([*ROWS, ("Who flies?", "The cat sees the dog.", NONE)])
    assert question_rows.checked(table, SQUAD_V2, "here").num_rows == 3
    with pytest.raises(DataError, match=r"here: column 'answers', row 2 .*task.unanswerable=true"):
        question_rows.checked(table, SQUAD, "here")


def test_an_empty_text_is_no_answer_in_v2_as_empty_lists_are() -> None:
    rows = [*ROWS, ("Who flies?", "The cat sees the dog.", NONE)]
    empty = [*ROWS, ("Who flies?", "The cat sees the dog.", {"text": [""], "answer_start": [0]})]
    assert question_rows.checked(table_of(empty), SQUAD_V2, "here").equals(
        question_rows.checked(table_of(rows), SQUAD_V2, "here")
    )
    assert question_rows.checked(table_of(empty), SQUAD, "here")["answers"].to_pylist()[2]["text"] == [""]


@pytest.mark.parametrize(("table", "words"), [
    (table_of([]), "zero rows"),
    (table_of(ROWS).drop_columns(["answers"]), "no column 'answers'"),
    (table_of(ROWS).set_column(1, "question", pa.array([1, 2])), "column 'question': its type is int64"),
    (table_of(ROWS).set_column(3, "answers", pa.array([1, 2])), "a struct of two lists"),
])  # fmt: skip
def test_what_is_no_table_of_questions_is_refused(table: pa.Table, words: str) -> None:
    with pytest.raises(DataError, match=words):
        question_rows.checked(table, SQUAD, "here")


def test_the_fingerprint_sees_answers_and_not_ids_or_chunks(tmp_path: Path) -> None:
    def fingerprint(table: pa.Table) -> str:
        (tmp_path / "squad").mkdir(exist_ok=True)
        for split in ("train", "validation"):
            pq.write_table(table, tmp_path / "squad" / f"{split}.parquet")
        return resolve.resolve(Data(source="local", root=str(tmp_path)), SQUAD).fingerprint

    table = table_of(ROWS)
    other = table_of([ROWS[0], (*ROWS[1][:2], said("dog", 17))])
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert fingerprint(table) == fingerprint(chunked) == fingerprint(table.drop_columns(["id"]))
    assert fingerprint(table) != fingerprint(other)
