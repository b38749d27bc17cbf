"""Whole runs on rows of one's own, without a file for the task, from one file to predictions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qexp.cli import predict
from qexp.errors import FAILED, INVALID, OK
from qexp.execution.plan import Plan
from qexp.records.record import read_all, records_folder
from tests.conftest import compose
from tests.support.jobs import record_problem, refused, run
from tests.support.row_files import write_csv, write_json_lines, write_saved

QUICK = (
    "quant=w8a8",
    "method=ptq",
    "deploy=none",
    "budget=smoke",
    "machine.progress=false",
    "machine.threads=1",
)
CLASSES = {"bad": "boring", "fair": "okay", "good": "lovely"}
REVIEWS: dict[str, list[Any]] = {
    "review": [f'A {list(CLASSES.values())[each % 3]} film, "number {each}"' for each in range(60)],
    "stars": [list(CLASSES)[each % 3] for each in range(60)],
}
OWN = ("task=classification", "data.text=review", "data.label=stars")
CONTEXT = "the cat sees the old dog and the bird"


@pytest.fixture
def words(tiny_bert: Path) -> tuple[str, ...]:
    return (f"model.name={tiny_bert}", *QUICK)


def test_classes_of_a_file(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_csv(tmp_path / "reviews.csv", REVIEWS)
    code, record = run(*OWN, f"data.path={path}", *words)
    assert code == OK, record_problem()
    task = record["experiment"]["task"]
    assert (task["name"], task["labels"], task["metrics"]) == ("reviews", list(CLASSES), ["accuracy"])
    assert record["labels"]["metrics"] == ["accuracy"]
    assert record["data"]["rows"] == {"train": 54, "validation": 6}
    shown = capsys.readouterr().err
    assert len(record["data"]["reading"]) == 2
    assert all(sentence in shown for sentence in record["data"]["reading"])
    assert "54 train, 6 validation" in shown and "bad, fair, good" in shown

    path = write_json_lines(tmp_path / "reviews.jsonl", REVIEWS)
    code, again = run(*OWN, f"data.path={path}", *words)
    assert again["key"] == record["key"]
    assert {stage["state"] for stage in again["stages"]} == {"cached"}


def test_a_plan_knows_the_classes(words: tuple[str, ...], tmp_path: Path) -> None:
    path = write_csv(tmp_path / "reviews.csv", REVIEWS)
    plan = Plan()
    plan.add(compose(*OWN, f"data.path={path}", *words))
    assert plan.complete
    _, record = run(*OWN, f"data.path={path}", *words)
    assert [(need.stage, need.key) for need in plan.jobs[0]] == [
        (stage["stage"], stage["key"]) for stage in record["stages"]
    ]


def test_numbers_of_a_saved_data_set(words: tuple[str, ...], tmp_path: Path) -> None:
    path = write_saved(tmp_path / "ratings", {"a": REVIEWS["review"], "b": REVIEWS["review"][::-1],
                                              "score": [each - 30.5 for each in range(60)]})  # fmt: skip
    code, record = run("task=regression", f"data.path={path}", "data.text=[a,b]", "data.label=score", *words)
    assert code == OK, record_problem()
    assert record["experiment"]["task"]["label_range"] == [-30.5, 28.5]
    assert set(record["scores"]["ptq"]) == {"pearson", "spearman"}


def questions(bad: int) -> dict[str, list[Any]]:
    answers = ["the old dog"] * (100 - bad) + ["a horse"] * bad
    return {
        "id": [f"q{each}" for each in range(100)],
        "question": [f"what does the cat see {each}" for each in range(100)],
        "context": [f"{each} {CONTEXT}" for each in range(100)],
        "answers": answers,
    }


def test_skipped_questions_are_told_and_refused_if_they_are_many(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own").mkdir()
    write_csv(tmp_path / "own" / "validation.csv", questions(0))
    asked = (
        "task=question_answering",
        f"data.path={tmp_path / 'own'}",
        "task.max_length=64",
        "task.doc_stride=8",
    )
    asked = (*asked, "task.max_question=16", *words)
    write_csv(tmp_path / "own" / "train.csv", questions(5))
    code, record = run(*asked)
    assert code == OK, record_problem()
    (warning,) = (each for each in record["warnings"] if "skipped" in each)
    assert "5 % of 100" in warning and "q95, q96" in warning
    assert warning in capsys.readouterr().err

    write_csv(tmp_path / "own" / "train.csv", questions(6))
    code, record = run(*asked)
    assert code == FAILED
    assert record["error"]["type"] == "DataError"
    assert "data.max_skipped=0.07" in record["error"]["message"]
    code, record = run(*asked, "data.max_skipped=0.07")
    assert code == OK


def test_a_run_that_could_not_read_its_rows_leaves_nothing(
    words: tuple[str, ...], tmp_path: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "reviews.csv"
    assert "reviews.csv" in refused(capsys, *OWN, f"data.path={path}", *words)
    write_csv(path, REVIEWS)
    assert run(*OWN, f"data.path={path}", *words)[0] == OK
    (record,) = read_all(records_folder(outputs))[0]
    assert record.status == "ok"


def test_predictions_read_the_columns_of_the_file(
    words: tuple[str, ...], tmp_path: Path, outputs: Path
) -> None:
    path = write_csv(tmp_path / "reviews.csv", REVIEWS)
    _, record = run(*OWN, f"data.path={path}", *words)
    result = tmp_path / "predicted.jsonl"
    assert predict.main([record["key"], str(path), "--output", str(result), "--outputs", str(outputs)]) == OK
    predicted = [json.loads(line) for line in result.read_text().splitlines()]
    assert len(predicted) == 60
    assert {row["prediction"] for row in predicted} <= set(CLASSES)
    assert list(predicted[0]["probabilities"]) == list(CLASSES)


@pytest.mark.slow
def test_the_command_line(tiny_bert: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "reviews.csv", REVIEWS)
    command = [sys.executable, "-m", "qexp", *OWN, "data.path=reviews.csv", f"model.name={tiny_bert}", *QUICK]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == OK, done.stderr
    assert "reviews" in done.stdout
    wrong = [word.replace("text=review", "text=reviw") for word in command]
    done = subprocess.run(wrong, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == INVALID
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error"))
    assert "data.text=reviw" in line and "did you mean 'review'?" in line
