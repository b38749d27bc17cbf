"""Whole runs on rows with any number of labels: from a file to a published folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from qexp.cli import compare, predict, publish, sensitivity
from qexp.errors import OK
from qexp.execution.plan import Plan
from tests.conftest import compose
from tests.support.jobs import record_problem, run
from tests.support.row_files import write_json_lines
from tests.support.tiny_runs import lively_bert

QUICK = ("budget=smoke", "machine.progress=false", "machine.threads=1")
WORDS = {"food": "cat", "art": "film", "sport": "dog"}
TOPICS = [[name for bit, name in enumerate(WORDS) if each >> bit & 1] for each in range(8)]
ROWS: dict[str, list[Any]] = {
    "text": [
        f"the {' '.join(WORDS[name] for name in TOPICS[each % 8])} number {each}" for each in range(160)
    ],
    "labels": [TOPICS[each % 8] for each in range(160)],
}


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    model = lively_bert(tmp_path / "model")
    path = write_json_lines(tmp_path / "notes.jsonl", ROWS)
    return ("task=multi_label", f"data.path={path}", f"model.name={model}", *QUICK)


@pytest.mark.parametrize("fit", ["none", "fp32", "each"])
def test_thresholds_stand_in_the_record(fit: str, words: tuple[str, ...]) -> None:
    code, record = run(*words, "method=ptq", "deploy=none", f"task.search.fit={fit}")
    assert code == OK, record_problem()
    assert set(record["scores"]["ptq"]) == {"f1_micro", "f1_macro", "subset_accuracy"}
    if fit == "none":
        assert record["scoring"] == {}
        return
    chosen = [record["scoring"][stage]["validation"]["thresholds"] for stage in ("fp32", "ptq")]
    assert set(chosen[0]) == {*WORDS} and chosen[0] != dict.fromkeys(WORDS, 0.5)
    assert (chosen[0] == chosen[1]) == (fit == "fp32")
    assert record["data"]["rows"] == {"train": 130, "validation": 16, "held_out": 14}


def test_a_plan_knows_its_keys(words: tuple[str, ...]) -> None:
    words = (*words, "method=ptq", "deploy=none", "task.search.fit=fp32")
    plan = Plan()
    plan.add(compose(*words))
    assert plan.complete
    _, record = run(*words)
    assert [(need.stage, need.key) for need in plan.jobs[0]] == [
        (stage["stage"], stage["key"]) for stage in record["stages"]
    ]


@pytest.mark.slow
def test_from_rows_to_a_published_folder(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtimes = "deploy.runtimes=[onnxruntime,openvino]"
    code, record = run(*words, "task.search.fit=each", "deploy=onnx", runtimes)
    assert code == OK, record_problem()
    for name in ("onnxruntime/int8", "openvino/int8"):
        gate = record["engines"][name]["gate"]
        assert gate["passed"] and set(gate["decisions"]) == {*WORDS}, name
        assert record["engines"][name]["scores"].keys() == record["scores"]["qat"].keys()
    folder, key = tmp_path / "published", record["key"]
    assert publish.main([key, str(folder)]) == 0
    thresholds = record["scoring"]["qat"]["validation"]["thresholds"]
    task = json.loads((folder / "task.json").read_text())["task"]
    assert task["search"]["thresholds"] == list(thresholds.values())
    card = (folder / "README.md").read_text()
    assert str(task["search"]["thresholds"]) in card and "sigmoid" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert list(config["id2label"].values()) == task["labels"]
    capsys.readouterr()
    source = str(write_json_lines(tmp_path / "new.jsonl", {"text": ROWS["text"][:20]}))
    told = []
    for arguments in ([key, source], [key, source, "--runtime", "openvino"], [str(folder), source]):
        assert predict.main(arguments) == 0
        told.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    for row in told[0]:
        expected = [name for name, at in thresholds.items() if row["probabilities"][name] > at]
        assert row["prediction"] == expected
    predictions = [[row["prediction"] for row in rows] for rows in told]
    assert predictions[0] == predictions[2]
    assert sum(map(list.__ne__, predictions[0], predictions[1])) <= 1
    table = tmp_path / "new.csv"
    assert predict.main([key, source, "--output", str(table)]) == 0
    with table.open(newline="", encoding="utf-8") as file:
        assert [line["prediction"] for line in csv.DictReader(file)] == list(map(";".join, predictions[0]))
    assert sensitivity.main([key, "--rows", "8"]) == 0
    assert compare.main([f"{key}:fp32", f"{key}:onnx", "--resamples", "100"]) == 0
    assert "subset_accuracy" in capsys.readouterr().out
