"""Whole runs of question answering on a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qexp.data.synthetic import sample
from qexp.execution.job import FAILED, OK
from tests.support.jobs import QUICK, TAUGHT, record_problem, run

WINDOWS = ("task.max_length=96", "task.doc_stride=32", "task.max_question=24")
WORDS = ("quant=w8a8", *WINDOWS, *QUICK, "budget.evaluation_rows=60")


@pytest.mark.slow
def test_one_run_reports_exact_match_and_f1_of_every_stage(tiny_bert: Path, outputs: Path) -> None:
    code, record = run("task=squad", f"model.name={tiny_bert}", *WORDS)
    # An untrained model scores all spans nearly alike, so that the exported file may choose another one.
    assert record["status"] == "ok", record_problem()
    assert code in (OK, FAILED)
    assert set(record["scores"]) == {"fp32", "ptq", "qat", "onnx"}
    assert all(set(scores) == {"f1", "exact_match"} for scores in record["scores"].values())
    assert record["data"]["preparation"]["train"]["skipped"] == {}
    assert record["parity"]["max_logit_difference"] < 0.1
    assert not record["scoring"]
    found = [
        pq.read_table(file) for file in (outputs / "artifacts" / "6-scores").glob("*/predictions-*.parquet")
    ]
    assert [table.num_rows for table in found] == [60, 60, 60]
    assert found[0].column_names == ["id", "prediction", "label", "logit_0", "logit_1", "margin"]


def test_answers_are_learned_from_a_teacher(tiny_bert: Path) -> None:
    code, record = run(
        "task=squad", f"model.name={tiny_bert}", *WORDS[:-2], *WORDS[-1:], *TAUGHT, "deploy=none"
    )
    assert code == OK, record_problem()
    assert set(record["scores"]) == {"fp32", "ptq", "qat"}


def test_questions_without_answer_are_scored_apart(tiny_bert: Path) -> None:
    words = [word for word in WORDS if not word.startswith("deploy")]
    code, record = run("task=squad_v2", f"model.name={tiny_bert}", *words, "deploy=none", "method=ptq")
    assert code == OK, record_problem()
    assert set(record["scores"]["ptq"]) == {"f1", "exact_match"}
    assert {"HasAns_f1", "NoAns_f1", "best_f1"} <= set(record["scoring"]["ptq"]["validation"])


def test_rows_that_cannot_be_used_are_counted(tiny_bert: Path, tmp_path: Path) -> None:
    tables = sample("squad")
    folder = tmp_path / "rows" / "squad"
    folder.mkdir(parents=True)
    bad = [
        _row("moved", "the cat is old", "cat", 5),
        _row("long", "the cat", "the cat is old", 0),
        _row("empty", " ", "cat", 0),
        _row("huge", "the old cat is red . " * 5000 + "the blue dog .", "blue dog", 21 * 5000 + 4),
    ]
    train = pa.Table.from_pylist(bad, tables["train"].schema)
    pq.write_table(pa.concat_tables([train, tables["train"].slice(0, 60)]), folder / "train.parquet")
    pq.write_table(tables["validation"].slice(0, 20), folder / "validation.parquet")
    words = [word for word in WORDS if word != "data=sample" and not word.startswith("deploy")]
    local = ("data=local", f"data.root={tmp_path / 'rows'}", "deploy=none", "method=ptq")
    code, record = run("task=squad", f"model.name={tiny_bert}", *words, *local)
    assert code == OK, record_problem()
    facts = record["data"]["preparation"]["train"]
    assert facts["skipped"] == {
        "the answer is not at answer_start": 1,
        "the answer is longer than its context": 1,
        "the context is empty": 1,
    }
    assert facts["windows"] > 1000  # 100 000 characters are read, not skipped


def _row(name: str, context: str, text: str, start: int) -> dict[str, Any]:
    answers = {"text": [text], "answer_start": [start]}
    return {"id": name, "title": "", "context": context, "question": "who ?", "answers": answers}
