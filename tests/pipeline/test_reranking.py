"""Whole runs of rerankings: a finished reranker quantized as it is, and from rows to a published folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qexp.cli import compare, predict, publish
from qexp.data.synthetic import sample
from qexp.errors import OK
from tests.support.jobs import record_problem, run
from tests.support.row_files import write_json_lines
from tests.support.tiny_runs import lively_bert

QUICK = ("budget=smoke", "machine.progress=false", "machine.threads=1", "quant=w8a8")
METRICS = {"ndcg_at_10", "mrr_at_10", "map"}


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    return ("task=reranking", f"model.name={lively_bert(tmp_path / 'model')}", *QUICK)


def test_a_finished_reranker_is_quantized_as_it_is(words: tuple[str, ...], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "model"
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).save_pretrained(folder)
    code, record = run(*words, "data=sample", "finetune=none", "method=ptq", "deploy=none")
    assert code == OK, record_problem()
    assert set(record["scores"]["ptq"]) == METRICS and "2-fp32" in {
        each["stage"] for each in record["stages"]
    }
    shift = record["shifts"]["ptq"]["validation"]
    assert (shift["queries"], shift["documents"]) == (60, 480)
    assert shift["logit"]["max_abs"] > 0 and shift["kendall"] > 0.8
    assert record["data"]["rows"] == {"train": 200, "validation": 60}
    assert any("60 queries are scored, with 480 documents" in each for each in record["data"]["reading"])


@pytest.mark.slow
def test_from_rows_to_a_published_folder(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sample("reranking")["train"].slice(0, 120).to_pydict()
    path = write_json_lines(tmp_path / "notes.jsonl", rows)
    code, record = run(*words, f"data.path={path}", "deploy=onnx", "task.threshold=0.4")
    assert code == OK, record_problem()
    gate = record["engines"]["onnxruntime/int8"]["gate"]
    assert gate["passed"] and gate["documents"] == 8 * gate["rows"]
    assert set(record["shifts"]) == {"ptq", "qat", "onnxruntime/int8"}
    assert record["shifts"]["qat"]["validation"]["accepted"]["threshold"] == 0.4
    folder, key = tmp_path / "published", record["key"]
    assert publish.main([key, str(folder)]) == 0
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: text-ranking" in card and "% of documents" in card
    for code_of in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        done = subprocess.run(
            [sys.executable, "-c", code_of], cwd=folder, capture_output=True, text=True, check=True
        )
        assert 0 < float(done.stdout.strip("[]\n")) < 1
    capsys.readouterr()
    pairs = {"query": rows["query"][:6], "document": [texts[0] for texts in rows["positive"][:6]]}
    source = str(write_json_lines(tmp_path / "new.jsonl", pairs))
    told = []
    for arguments in ([key, source], [str(folder), source]):
        assert predict.main(arguments) == 0
        told.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert told[0] == told[1] and all(0 < row["prediction"] < 1 for row in told[0])
    assert compare.main([f"{key}:fp32", f"{key}:qat", "--resamples", "100"]) == 0
    out = capsys.readouterr().out
    assert "shift of scores" in out and "ndcg_at_10" in out and "another first document" in out
