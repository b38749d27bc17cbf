"""Tests that predictions of new rows (numbers, answers, translations) equal those that the run evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from qexp.cli import predict
from qexp.data.metrics.bleu import bleu
from qexp.data.metrics.squad import score_v2
from qexp.data.synthetic import sample
from qexp.records.record import Record
from tests.support.tiny_runs import artifacts, lively_bert, run
from tests.support.translators import SIZES

pytestmark = pytest.mark.slow

PTQ = ("quant=w8a8", "method=ptq", "deploy=none")
WINDOWS = ("task.max_length=96", "task.doc_stride=32", "task.max_question=24")
SHORT = ("task.search.max_new_tokens=12", "task.search.beams=2", "budget.evaluation_rows=12")


def predicted(outputs: Path, record: Record, rows: list[dict[str, Any]], *args: str) -> list[dict[str, Any]]:
    file, out = outputs / "rows.jsonl", outputs / "out.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert predict.main([record.key, str(file), "--outputs", str(outputs), "--output", str(out), *args]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


def evaluated(outputs: Path, record: Record) -> dict[str, list[Any]]:
    """The run's own last predictions."""
    folder = artifacts(record, outputs, "6-scores")[-1]
    (file,) = folder.glob("predictions-*.parquet")
    found: dict[str, list[Any]] = pq.read_table(file).to_pydict()
    return found


def test_numbers(tmp_path: Path) -> None:
    record = run(tmp_path, "task=stsb", *PTQ, f"model.name={lively_bert(tmp_path / 'bert')}")
    left = evaluated(tmp_path, record)
    rows = sample("stsb")["validation"].slice(0, len(left["label"])).to_pylist()
    found = predicted(tmp_path, record, rows)
    assert [row["prediction"] for row in found] == left["prediction"]
    assert all(list(row) == ["index", "prediction"] for row in found)


def test_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = f"model.name={lively_bert(tmp_path / 'bert')}"
    record = run(tmp_path, "task=squad_v2", *PTQ, *WINDOWS, "budget.evaluation_rows=24", model)
    left = evaluated(tmp_path, record)
    rows = sample("squad_v2")["validation"].slice(0, len(left["label"])).to_pylist()
    found = predicted(tmp_path, record, rows)
    texts = [row["prediction"] for row in found]
    assert texts == left["prediction"]
    assert score_v2(texts, left["label"])["f1"] == record.scores["ptq"]["f1"]
    for row, given in zip(found, rows, strict=True):
        assert 0 <= row["probability"] <= 1
        place = (row["start"], row["end"])
        assert (
            given["context"][slice(*place)] == row["prediction"]
            if row["prediction"]
            else place == (None, None)
        )
    assert any(texts)
    blank = [{"question": " ", "context": "the cat"}, {"question": "who?", "context": "the cat"}]
    assert predicted(tmp_path, record, blank)[0]["prediction"] == ""
    assert (
        "1 rows were not asked, the question is empty: their prediction is empty" in capsys.readouterr().err
    )


def test_translations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ("task=translation", "model=transformer_tiny", *SIZES, *SHORT, "finetune.batch_size=16")
    record = run(tmp_path, *overrides, *PTQ)
    left = evaluated(tmp_path, record)
    rows = sample("multi30k_en_de")["test"].slice(0, len(left["label"])).select(["en"]).to_pylist()
    found = predicted(tmp_path, record, rows)
    texts = [row["prediction"] for row in found]
    assert texts == left["prediction"]
    assert [row["score"] for row in found] == left["logit_0"]
    assert bleu(texts, left["label"]) == record.scores["ptq"]["bleu"]
    arguments = (record.key, str(tmp_path / "rows.jsonl"), "--outputs", str(tmp_path))
    assert predict.main([*arguments, "--runtime", "onnxruntime"]) == 2
    assert "not exported to one graph; use --runtime torch" in capsys.readouterr().err
