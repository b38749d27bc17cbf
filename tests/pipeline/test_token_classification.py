"""Whole runs on words with tags: from a file to a published folder."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qexp.cli import compare, predict, publish, sensitivity
from qexp.errors import OK
from tests.support.jobs import record_problem, run
from tests.support.row_files import write_json_lines
from tests.support.tiny_runs import lively_bert

QUICK = ("budget=smoke", "machine.progress=false", "machine.threads=1", "task.max_length=24")
NAMES = (("bob", "smith"), ("paris",), ("the",), ("cat", "sees"))
KINDS = (("B-PER", "I-PER"), ("B-LOC",), ("O",), ("O", "O"))
SENTENCES = [[(each * step + step) % 4 for step in range(1 + each % 24)] for each in range(160)]
WORDS = [[*sum((NAMES[place] for place in row), ()), f"n{each}"] for each, row in enumerate(SENTENCES)]
TAGS = [[*sum((KINDS[place] for place in row), ()), "O"] for row in SENTENCES]
METRICS = ("f1_span", "precision_span", "recall_span", "token_accuracy")


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    model = lively_bert(tmp_path / "model")
    path = write_json_lines(tmp_path / "notes.jsonl", {"tokens": WORDS, "ner_tags": TAGS})
    return ("task=token_classification", f"data.path={path}", f"model.name={model}", *QUICK)


def test_the_record_counts_lost_words(words: tuple[str, ...]) -> None:
    code, record = run(*words, "method=ptq", "deploy=none")
    assert code == OK, record_problem()
    assert set(record["scores"]["ptq"]) == {*METRICS}
    facts = record["data"]["preparation"]
    assert facts["train"]["truncated"] > 0 < facts["train"]["lost_words"]
    assert record["experiment"]["task"]["labels"] == ["O", "B-LOC", "B-PER", "I-PER"]


@pytest.mark.slow
def test_from_rows_to_a_published_folder(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtimes = "deploy.runtimes=[onnxruntime,openvino]"
    code, record = run(*words, "deploy=onnx", runtimes)
    assert code == OK, record_problem()
    for name in ("onnxruntime/int8", "openvino/int8"):
        gate = record["engines"][name]["gate"]
        assert gate["passed"] and gate["words"] > gate["rows"] == record["data"]["rows"]["validation"], name
        assert record["engines"][name]["scores"].keys() == record["scores"]["qat"].keys()
    folder, key = tmp_path / "published", record["key"]
    assert publish.main([key, str(folder)]) == 0
    config = json.loads((folder / "config.json").read_text())
    assert list(config["id2label"].values()) == record["experiment"]["task"]["labels"]
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: token-classification" in card and "% of words" in card
    for code_of in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        done = subprocess.run(
            [sys.executable, "-c", code_of], cwd=folder, capture_output=True, text=True, check=True
        )
        assert [line.split()[0] for line in done.stdout.splitlines()][:2] == ["Anna", "sees"]
        assert len(done.stdout.splitlines()) == 7
    capsys.readouterr()
    source = str(write_json_lines(tmp_path / "new.jsonl", {"tokens": WORDS[:12]}))
    told = []
    for arguments in ([key, source], [key, source, "--runtime", "openvino"], [str(folder), source]):
        assert predict.main(arguments) == 0
        told.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert [row["words"] for row in told[0]] == WORDS[:12]
    assert all(len(row["prediction"]) == len(row["words"]) for row in told[0])
    assert told[0] == told[2]
    assert sum(map(dict.__ne__, told[0], told[1])) <= 1
    table = tmp_path / "new.csv"
    lines = tmp_path / "new.txt"
    lines.write_text("".join(" ".join(row) + "\n" for row in WORDS[:12]))
    assert predict.main([key, str(lines), "--output", str(table)]) == 0
    with table.open(newline="", encoding="utf-8") as file:
        expected = [";".join(row["prediction"]) for row in told[0]]
        assert [line["prediction"] for line in csv.DictReader(file)] == expected
    assert sensitivity.main([key, "--rows", "8"]) == 0
    assert compare.main([f"{key}:fp32", f"{key}:onnx", "--resamples", "100"]) == 0
    assert "f1_span" in capsys.readouterr().out


@pytest.mark.slow
def test_a_finetuned_checkpoint_is_quantized_as_it_is(words: tuple[str, ...], tmp_path: Path) -> None:
    from transformers import AutoModelForTokenClassification

    names = dict(enumerate(("I-PER", "B-PER", "O", "B-LOC")))
    folder = tmp_path / "model"
    AutoModelForTokenClassification.from_pretrained(folder, id2label=names).save_pretrained(folder)
    engines = ("deploy=onnxruntime", "deploy.batch_sizes=[2]", "deploy.lengths=[16]")
    code, record = run(*words, "method=ptq", "finetune=none", *engines)
    assert code == OK, record_problem()
    assert record["engines"]["onnxruntime/int8"]["latency"]
    assert any("I-PER" in note and "O, B-LOC" in note for note in record["warnings"])
