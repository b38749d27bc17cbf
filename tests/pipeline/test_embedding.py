"""Whole runs of embeddings: PTQ without any training, QAT without labels, both runtimes, publish, predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from qexp.cli import compare, predict, publish
from qexp.data.synthetic import sample
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.records.record import Record
from tests.support.jobs import QUICK, record_problem
from tests.support.jobs import run as run_job
from tests.support.other_encoders import checkpoint
from tests.support.row_files import write_csv
from tests.support.tiny_runs import artifacts, lively_bert, run

BOTH = ("deploy=onnx", "deploy.runtimes=[onnxruntime,openvino]")


def test_the_checkpoint_is_the_fp32_model_and_nothing_is_trained(tmp_path: Path) -> None:
    bert = lively_bert(tmp_path / "bert")
    record = run(
        tmp_path, "task=stsb_embedding", "quant=w8a8", "method=ptq", "deploy=none", f"model.name={bert}"
    )
    assert record.experiment["finetune"]["kind"] == "none"
    assert set(record.scores) == {"fp32", "ptq"}
    assert set(record.scores["ptq"]) == {"spearman", "pearson"}
    facts = json.loads((artifacts(record, tmp_path, "2-fp32")[0] / "facts.json").read_text())
    assert facts["steps"] == 0


def test_own_rows_and_the_first_token(tmp_path: Path) -> None:
    rows = {
        "left": [f"the cat sees bird {each}" for each in range(40)],
        "right": [f"a bird is seen by {each} cats" for each in range(40)],
        "alike": [each % 7 for each in range(40)],
    }
    path = write_csv(tmp_path / "pairs.csv", rows)
    words = ("data.text=[left,right]", "data.label=alike", "task.pooling=cls", "quant=w8a8", "method=ptq")
    bert = lively_bert(tmp_path / "bert")
    quick = ("deploy=none", *QUICK[1:-1], f"model.name={bert}")
    code, record = run_job("task=embedding", f"data.path={path}", *words, *quick)
    assert code == 0, record_problem()
    assert record["experiment"]["task"]["name"] == "pairs"
    assert record["data"]["rows"] == {"train": 36, "validation": 4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """Outputs of a run with QAT in both runtimes, and its published folder ``vectors``."""
    outputs = tmp_path_factory.mktemp("outputs")
    bert = lively_bert(tmp_path_factory.mktemp("bert"))
    record = run(outputs, "task=stsb_embedding", "quant=w8a8", "method=qat", *BOTH, f"model.name={bert}")
    assert publish.main([record.key, str(outputs / "vectors"), "--outputs", str(outputs)]) == 0
    return outputs, record


@pytest.mark.slow
def test_both_runtimes_compute_the_embeddings_of_torch(finished: tuple[Path, Record]) -> None:
    _, record = finished
    assert set(record.scores) == {"fp32", "ptq", "qat", "onnx"}
    assert set(record.engines) == {"onnxruntime/int8", "openvino/int8"}
    for engine in record.engines.values():
        gate = engine["gate"]
        assert gate["passed"], gate["reasons"]
        assert 0.9 < gate["cosines"]["min"] <= gate["cosines"]["p50"] <= 1
        assert gate["floor"]["cosines"]["min"] <= 1
    method = record.experiment["method"]
    assert (method["distillation"]["labels"], method["distillation"]["logits"]) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MPNet", "Albert"])
def test_other_encoders(name: str, tmp_path: Path) -> None:
    model = f"model.name={checkpoint(tmp_path / name, name)}"
    words = ("task=stsb_embedding", "quant=w8a8", "method=ptq", *QUICK[:-1], *BOTH, model)
    code, record = run_job(*words)
    assert code == 0, record_problem()[:300]
    assert all(engine["gate"]["passed"] for engine in record["engines"].values())


def embeddings(folder: Path, graph: str, texts: list[str], output: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    session = new_session(folder / graph)
    rows = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="np")
    (found,) = session.run([output], {each.name: rows[each.name] for each in session.get_inputs()})
    return found, rows["attention_mask"]


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["onnx/model.onnx", "onnx/model_int8.onnx"])
def test_the_folder_is_one_that_sentence_transformers_takes(
    graph: str, finished: tuple[Path, Record]
) -> None:
    """It pools the output ``last_hidden_state`` itself, as its files say."""
    folder = finished[0] / "vectors"
    modules = json.loads((folder / "modules.json").read_text())
    assert [each["type"].rpartition(".")[2] for each in modules] == ["Transformer", "Pooling", "Normalize"]
    pooling = json.loads((folder / "1_Pooling/config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"] and not pooling["pooling_mode_cls_token"]
    assert json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"] == 128
    texts = ["the cat sees the bird", "a dog", "the old man and the old dog see the bird in the house"]
    vectors, _ = embeddings(folder, graph, texts, "sentence_embedding")
    hidden, mask = embeddings(folder, graph, texts, "last_hidden_state")
    assert hidden.shape == (*mask.shape, pooling["word_embedding_dimension"])
    pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    np.testing.assert_allclose(vectors, pooled / np.linalg.norm(pooled, axis=1, keepdims=True), atol=1e-5)
    card = (folder / "README.md").read_text()
    assert f"{finished[1].scores['qat']['spearman']:.2f}" in card
    assert "library_name: sentence-transformers" in card


@pytest.mark.slow
@pytest.mark.parametrize("source", ["run", "vectors", "vectors/integer"])
def test_new_rows(source: str, finished: tuple[Path, Record], tmp_path: Path) -> None:
    outputs, record = finished
    (folder,) = artifacts(record, outputs, "6-scores")[-1:]
    evaluated = pq.read_table(folder / "predictions-validation.parquet").to_pydict()
    rows = sample("stsb")["validation"].slice(0, len(evaluated["id"])).to_pylist()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    subject = record.key if source == "run" else str(outputs / source)

    def predicted(*more: str) -> list[dict[str, Any]]:
        out = tmp_path / "out.jsonl"
        words = [
            subject,
            str(tmp_path / "rows.jsonl"),
            "--outputs",
            str(outputs),
            "--output",
            str(out),
            *more,
        ]
        assert predict.main(words) == 0
        return [json.loads(line) for line in out.read_text().splitlines()]

    cosines = [row["prediction"] for row in predicted()]
    np.testing.assert_allclose(cosines, evaluated["prediction"], atol=1e-6)
    width = sum(name.startswith("logit_") for name in evaluated) // 2
    first = np.stack([evaluated[f"logit_{index}"] for index in range(width)], axis=1)
    np.testing.assert_allclose([row["embedding"] for row in predicted("--vectors")], first, atol=1e-2)


@pytest.mark.slow
def test_scores_are_paired(finished: tuple[Path, Record], capsys: pytest.CaptureFixture[str]) -> None:
    outputs, record = finished
    sides = [f"{record.key}:ptq", f"{record.key}:qat"]
    assert compare.main([*sides, "--outputs", str(outputs)]) == 0
    assert "spearman" in capsys.readouterr().out


@pytest.mark.slow
def test_vectors_are_those_of_an_embedding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bert = lively_bert(tmp_path / "bert")
    record = run(tmp_path, "task=stsb", "quant=w8a8", "method=ptq", "deploy=none", f"model.name={bert}")
    (tmp_path / "rows.jsonl").write_text('{"sentence1": "a cat", "sentence2": "a dog"}\n')
    words = [record.key, str(tmp_path / "rows.jsonl"), "--outputs", str(tmp_path), "--vectors"]
    assert predict.main(words) == 2
    assert "--vectors" in capsys.readouterr().err
