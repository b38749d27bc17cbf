"""Whole runs of a retrieval: PTQ and QAT, the gate, comparison, new queries, and the published folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from qexp.cli import compare, predict, publish
from qexp.records.record import Record
from tests.support.corpora import CORPUS, QUERIES, write_beir
from tests.support.jobs import QUICK, record_problem
from tests.support.jobs import run as run_job
from tests.support.tiny_runs import artifacts, lively_bert, run

METRICS = {"ndcg_at_10", "recall_at_10", "recall_at_100", "mrr_at_10", "map"}
PREFIXES = ("task.query_prefix='who '", "task.document_prefix='the '")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """Outputs of a run with PTQ in ONNX Runtime, and its published folder ``vectors``."""
    outputs = tmp_path_factory.mktemp("outputs")
    bert = lively_bert(tmp_path_factory.mktemp("bert"))
    words = ("task=retrieval", "task.max_length=64", "quant=w8a8", "method=ptq", "deploy=onnx", *PREFIXES)
    record = run(outputs, *words, f"model.name={bert}")
    assert publish.main([record.key, str(outputs / "vectors"), "--outputs", str(outputs)]) == 0
    return outputs, record


@pytest.mark.slow
def test_the_engine_ranks_as_torch_does(finished: tuple[Path, Record]) -> None:
    _, record = finished
    assert set(record.scores) == {"fp32", "ptq", "onnx"}
    assert set(record.scores["ptq"]) == METRICS
    gate = record.engines["onnxruntime/int8"]["gate"]
    assert gate["passed"], gate["reasons"]
    assert 0.9 < gate["cosines"]["min"] <= 1
    assert 0.5 < gate["overlap"]["min"] <= gate["overlap"]["mean"] <= 1
    assert gate["floor"]["overlap"]["mean"] <= 1


@pytest.mark.slow
def test_predictions_hold_ids_and_scores(finished: tuple[Path, Record]) -> None:
    outputs, record = finished
    (folder,) = artifacts(record, outputs, "6-scores")[-1:]
    rows = pq.read_table(folder / "predictions-test.parquet").to_pylist()
    for row in rows:
        assert len(row["prediction"]) == len({*row["prediction"]}) == len(row["score"])
        assert row["score"] == sorted(row["score"], reverse=True)
        assert {*row["label"][0]} == {"document", "relevance"}


@pytest.mark.slow
def test_queries_are_paired(finished: tuple[Path, Record], capsys: pytest.CaptureFixture[str]) -> None:
    outputs, record = finished
    sides = [f"{record.key}:fp32", f"{record.key}:ptq"]
    assert compare.main([*sides, "--outputs", str(outputs)]) == 0
    out = capsys.readouterr().out
    assert all(metric in out for metric in METRICS)


def predicted(subject: str, outputs: Path, folder: Path, *more: str) -> list[dict[str, Any]]:
    queries = [{"_id": "a", "text": "which man sees the bird"}, {"_id": "b", "text": "what is in the town"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    out = folder / "out.jsonl"
    words = [subject, str(folder / "queries.jsonl"), "--outputs", str(outputs), "--output", str(out), *more]
    assert predict.main(words) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.slow
def test_new_queries_get_documents_of_the_runs_corpus(finished: tuple[Path, Record], tmp_path: Path) -> None:
    outputs, record = finished
    rows = predicted(record.key, outputs, tmp_path, "--keep")
    assert [row["_id"] for row in rows] == ["a", "b"]
    assert all(len(row["prediction"]) == 10 and row["prediction"][0].startswith("d") for row in rows)
    queries, documents = (
        [row["embedding"] for row in predicted(record.key, outputs, tmp_path, "--vectors", *more)]
        for more in ((), ("--documents",))
    )
    assert not np.allclose(queries, documents, atol=1e-3), "each has a prefix of its own"
    published = [
        row["embedding"] for row in predicted(str(outputs / "vectors"), outputs, tmp_path, "--vectors")
    ]
    np.testing.assert_allclose(published, queries, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("more", "part"), [((), "no corpus"), (("--documents",), "--vectors")])
def test_a_published_folder_has_no_corpus(
    more: tuple[str, ...],
    part: str,
    finished: tuple[Path, Record],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outputs, _ = finished
    (tmp_path / "rows.jsonl").write_text('{"text": "a cat"}\n')
    assert predict.main([str(outputs / "vectors"), str(tmp_path / "rows.jsonl"), *more]) == 2
    assert part in capsys.readouterr().err


@pytest.mark.slow
def test_the_folder_names_its_prompts(finished: tuple[Path, Record]) -> None:
    folder = finished[0] / "vectors"
    content = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert content["prompts"] == {"query": "who ", "document": "the "}
    assert content["default_prompt_name"] is None
    card = (folder / "README.md").read_text()
    assert 'prompt_name="query"' in card and "who The old man" in card


@pytest.mark.slow
def test_own_rows_and_qat_from_similarities(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "mine")
    words = ("quant=w8a8", "method=qat", "task.max_length=32", "method.distillation.similarity=1")
    quick = ("deploy=none", *QUICK[1:-1], f"model.name={lively_bert(tmp_path / 'bert')}")
    code, record = run_job("task=retrieval", f"data.path={folder}", *words, *quick)
    assert code == 0, record_problem()
    assert record["data"]["rows"] == {"corpus": len(CORPUS["_id"]), "test": 2, "train": 5}
    assert set(record["scores"]["qat"]) == METRICS
    assert record["experiment"]["method"]["distillation"]["similarity"] == 1
    assert len(QUERIES["_id"]) == 4
