"""Questions from SQuAD's own files, and from columns of every type that people have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qexp.config import Data
from qexp.data.skipped import skipped_in
from qexp.data.sources.resolve import SourceRows, resolve
from qexp.data.tokenization.windows import Windowing, tokenize_questions
from qexp.errors import DataError
from tests.conftest import experiment
from tests.support.question_rows import NONE, said, table_of
from tests.support.row_files import write_csv, write_json_lines
from tests.support.tokenizers import bert

CONTEXT = "The cat sees the dög. The bird sleeps."
TABLE = table_of([("Who sees?", CONTEXT, said("The cat", 0)), ("Who sleeps?", CONTEXT, said("The bird", 22))])
UNANSWERED = table_of([("Who sees?", CONTEXT, said("The cat", 0)), ("Who flies?", CONTEXT, NONE)])


def document(table: pa.Table, version: str) -> dict[str, Any]:
    """Rows in the form of SQuAD's files: an article of a paragraph."""
    qas = [
        {
            "id": row["id"],
            "question": row["question"],
            "is_impossible": not row["answers"]["text"],
            "answers": [
                {"text": text, "answer_start": start}
                for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
            ],
            "plausible_answers": [{"text": "The dög", "answer_start": 13}],
        }
        for row in table.to_pylist()
    ]
    return {"version": version, "data": [{"title": "Cats", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]}


def read(root: Path, task: str = "squad", **data: Any) -> SourceRows:
    return resolve(Data(source="local", root=str(root), **data), experiment(f"task={task}").task)


def write(folder: Path, table: pa.Table) -> Path:
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        pq.write_table(table, folder / f"{split}.parquet")
    return folder.parent


@pytest.mark.parametrize(
    ("task", "version", "table"), [("squad", "1.1", TABLE), ("squad_v2", "2.0", UNANSWERED)], ids=["v1", "v2"]
)
def test_the_official_files(task: str, version: str, table: pa.Table, tmp_path: Path) -> None:
    (tmp_path / "json" / task).mkdir(parents=True)
    for split in ("train", "dev"):
        path = tmp_path / "json" / task / f"{split}-v{version}.json"
        path.write_text(json.dumps(document(table, version)), encoding="utf-8")
    found = read(tmp_path / "json", task)
    expected = read(write(tmp_path / "parquet" / task, table), task)
    assert found.fingerprint == expected.fingerprint
    assert found.splits["validation"].equals(expected.splits["validation"])


def test_a_damaged_official_file(tmp_path: Path) -> None:
    (tmp_path / "squad").mkdir()
    damaged = document(TABLE, "1.1")
    del damaged["data"][0]["paragraphs"][0]["qas"][1]["answers"]
    (tmp_path / "squad" / "train-v1.1.json").write_text(json.dumps(damaged))
    with pytest.raises(DataError, match=r"train-v1\.1\.json: not the form of SQuAD's.*answers"):
        read(tmp_path)


def lists(text: pa.DataType, item: pa.DataType, of: Callable[[pa.DataType], pa.DataType]) -> pa.StructArray:
    rows = [{"answer_start": [0], "text": ["The cat"]}, {"answer_start": [22], "text": ["The bird"]}]
    return pa.array(rows, pa.struct([("answer_start", of(item)), ("text", of(text)), ("extra", pa.int8())]))


PAIRS = [[{"text": "The cat", "answer_start": 0}], [{"text": "The bird", "answer_start": 22}]]
ANSWERS = {
    "large": lists(pa.large_string(), pa.int64(), pa.large_list),
    "views": lists(pa.string_view(), pa.int16(), pa.list_),
    "a list of structs": pa.array(PAIRS),
    "a large list of structs": pa.array(
        PAIRS, pa.large_list(pa.struct([("text", pa.large_string()), ("answer_start", pa.int32())]))
    ),
    "texts": pa.array(["The cat", "The bird"]),
    "large texts": pa.array(["The cat", "The bird"], pa.large_string()),
    "categories": pa.array(["The cat", "The bird"]).dictionary_encode(),
    "lists of categories": pa.StructArray.from_arrays(
        [
            pa.array([[0], [22]]),
            pa.ListArray.from_arrays([0, 1, 2], pa.array(["The cat", "The bird"]).dictionary_encode()),
        ],
        ["answer_start", "text"],
    ),
}
CATEGORIES = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), CATEGORIES], ids=str)
@pytest.mark.parametrize("answers", ANSWERS)
def test_types_of_columns_do_not_count(answers: str, kind: pa.DataType, tmp_path: Path) -> None:
    columns = {name: pa.array(TABLE[name].to_pylist()).cast(kind) for name in ("id", "question", "context")}
    other = read(write(tmp_path / "a" / "squad", pa.table({**columns, "answers": ANSWERS[answers]})))
    plain = read(write(tmp_path / "b" / "squad", TABLE))
    assert other.fingerprint == plain.fingerprint
    assert other.splits["train"].equals(plain.splits["train"])


def test_a_column_of_starts_comes_before_the_first_place(tmp_path: Path) -> None:
    rows = {
        "question": ["Which the?", "Which?"],
        "context": [CONTEXT, f"{CONTEXT}!"],
        "answers": ["sees", "The"],
        "answer_start": [8, 22],
    }
    path = write_csv(tmp_path / "own.csv", rows)
    task = experiment("task=question_answering", f"data.path={path}").task
    found = resolve(Data(source="local", path=str(path)), task)
    answers = [row for table in found.splits.values() for row in table["answers"].to_pylist()]
    assert sorted(answers, key=str) == [
        {"text": ["The"], "answer_start": [22]},
        {"text": ["sees"], "answer_start": [8]},
    ]


def test_questions_of_one_context_stay_together(tmp_path: Path) -> None:
    contexts = [f"{CONTEXT} {number}" for number in range(20) for _ in range(3)]
    rows = {
        "question": [f"Who {each}?" for each in range(60)],
        "context": contexts,
        "answers": ["The cat"] * 60,
    }
    path = write_json_lines(tmp_path / "own.jsonl", rows)
    task = experiment("task=question_answering", f"data.path={path}").task
    found = resolve(Data(source="local", path=str(path)), task)
    train, validation = (set(found.splits[name]["context"].to_pylist()) for name in ("train", "validation"))
    assert len(validation) == 2
    assert not train & validation
    assert found.splits["validation"].num_rows == 6


def test_skipped_questions_are_kept_by_reason(tmp_path: Path) -> None:
    table = table_of([("Who?", CONTEXT, said("The cat", 0)), ("Who?", CONTEXT, said("The cow", 0))])
    windows = tokenize_questions(table, Windowing(64, 0, 16), bert(), tmp_path, answers=True)
    assert skipped_in(tmp_path) == windows.skipped
    assert [(each.rows, each.first_ids) for each in windows.skipped] == [(1, ("q1",))]
