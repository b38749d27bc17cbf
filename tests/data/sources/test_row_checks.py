"""Checks of rows that are valid but may mislead."""

from __future__ import annotations

from pathlib import Path

import pytest

from qexp.config import Data, QuestionTask, TextTask, TokenTask
from qexp.data.sources.resolve import SourceRows, resolve
from qexp.data.sources.row_checks import cut_rows
from tests.support.row_files import Rows, write_csv, write_json_lines

TRAIN = {"text": ["one", "two", "three", "four"], "label": ["a", "b", "a", "b"]}


def read(folder: Path, validation: Rows, train: Rows = TRAIN) -> SourceRows:
    write_csv(folder / "train.csv", train)
    write_csv(folder / "validation.csv", validation)
    task = TextTask(
        kind="classification", name="t", text=("text",), metrics=(), evaluation={"validation": "validation"}
    )
    return resolve(Data(path=str(folder)), task)


def sentences(rows: SourceRows) -> dict[str, str]:
    return {check.name: check.sentence for check in rows.checks}


def test_texts_of_the_train_split_are_counted_whatever_their_case_and_spaces(tmp_path: Path) -> None:
    rows = read(tmp_path, {"text": [" ONE", "two ", "five", "six"], "label": ["a", "b", "a", "b"]})
    assert "2 of 4 rows (50.0 %) have the texts of train rows" in sentences(rows)["duplicates"]
    assert [sentences(rows)["duplicates"]] == [*rows.notes]


def test_rows_without_faults_leave_no_warning(tmp_path: Path) -> None:
    rows = read(tmp_path, {"text": ["five", "six", "seven"], "label": ["a", "b", "b"]})
    assert "0 of 3 rows" in sentences(rows)["duplicates"]
    balance = sentences(rows)["balance"]
    assert "b 66.7 %, a 33.3 %" in balance and "guessing the first is right for 66.7 %" in balance
    assert rows.notes == ()


@pytest.mark.parametrize(
    ("labels", "part"),
    [(["a"] * 18 + ["b"] * 2, "task.metrics=[f1_macro,accuracy]"), (["a"] * 20, "no row has b")],
)
def test_one_sided_and_absent_classes_are_warnings(labels: list[str], part: str, tmp_path: Path) -> None:
    rows = read(tmp_path, {"text": [f"new {number}" for number in range(20)], "label": labels})
    (note,) = rows.notes
    assert part in note


def test_equal_rows_of_one_file_are_in_one_split(tmp_path: Path) -> None:
    texts = [f"t{number % 20}" for number in range(60)]
    path = write_csv(tmp_path / "rows.csv", {"text": texts, "label": ["a", "b"] * 30})
    task = TextTask(
        kind="classification", name="t", text=("text",), metrics=(), evaluation={"validation": "validation"}
    )
    found = sentences(resolve(Data(path=str(path), validation_share=0.5), task))
    assert "0 of 30 rows" in found["duplicates"]


def test_words_and_questions_are_compared_too(tmp_path: Path) -> None:
    words = {"tokens": [["Ann", "runs"], ["Ben"]], "ner_tags": [["B-PER", "O"], ["B-PER"]]}
    write_json_lines(tmp_path / "train.jsonl", words)
    write_json_lines(tmp_path / "validation.jsonl", {name: values[:1] for name, values in words.items()})
    task = TokenTask(
        kind="token_classification", name="t", text=("tokens",), label="ner_tags", metrics=("f1_span",),
        evaluation={"validation": "validation"},
    )  # fmt: skip
    (check,) = resolve(Data(path=str(tmp_path)), task).checks
    assert "1 of 1 rows (100.0 %)" in check.sentence
    folder = tmp_path / "questions"
    folder.mkdir()
    rows = {"question": ["Who?", "Where?"], "context": ["Ann", "Ann"], "answers": ["Ann", "Ann"]}
    write_json_lines(folder / "train.jsonl", rows)
    write_json_lines(folder / "validation.jsonl", rows | {"question": ["Who?", "When?"]})
    questions = QuestionTask(
        kind="question_answering", name="t", metrics=("f1",), evaluation={"validation": "validation"}
    )
    (check,) = resolve(Data(path=str(folder)), questions).checks
    assert "1 of 2 rows (50.0 %)" in check.sentence


def test_generated_rows_are_not_checked() -> None:
    task = TextTask(
        kind="classification", name="sst2", text=("sentence",), labels=("negative", "positive"),
        metrics=("accuracy",), evaluation={"validation": "validation"},
    )  # fmt: skip
    assert resolve(Data(source="sample"), task).checks == ()


@pytest.mark.parametrize(("cut", "worrying"), [(0, False), (1, False), (2, True)])
def test_cut_rows_worry_from_one_in_a_hundred(cut: int, worrying: bool) -> None:
    check = cut_rows("validation", cut, 200, 64)
    assert check.is_warning == worrying
    assert f"{cut} of 200 rows" in check.sentence and "task.max_length=64" in check.sentence
