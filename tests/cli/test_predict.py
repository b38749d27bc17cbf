"""``qexp predict``: predictions equal those of the run's evaluation, for every runtime and input format."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from qexp.cli import predict
from qexp.data.metrics.glue import score
from qexp.data.synthetic import sample
from qexp.errors import INTERRUPTED
from qexp.prediction.predictor import Predictor
from qexp.records.record import Record, read_all, records_folder
from tests.support.tiny_runs import TinyRuns, artifacts, lively_bert

pytestmark = pytest.mark.slow

LABELS = ["negative", "positive"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_runs: TinyRuns) -> Path:
    """Outputs of a quantized run with its graphs."""
    bert = lively_bert(tmp_path_factory.mktemp("bert"))
    return tiny_runs(("task=sst2", "quant=w8a8", "method=ptq", "deploy=onnx", f"model.name={bert}"))


def record_of(outputs: Path) -> Record:
    return read_all(records_folder(outputs))[0][0]


@pytest.fixture
def rows(finished: Path, tmp_path: Path) -> Path:
    """The rows that the run evaluated."""
    count = len(evaluated(finished, "ptq"))
    table = sample("sst2")["validation"].slice(0, count)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
    return path


def evaluated(outputs: Path, stage: str) -> pa.Table:
    """Predictions that the run itself left, of a stage in torch or of its graph."""
    record = record_of(outputs)
    name = "8-parity" if stage == "onnx" else "6-scores"
    folder = artifacts(record, outputs, name)[{"fp32": 0, "ptq": 1, "onnx": 0}[stage]]
    return pq.read_table(folder / "predictions-validation.parquet")


def ask(outputs: Path, rows: Path, *words: str) -> int:
    return predict.main([record_of(outputs).key[:8], str(rows), "--outputs", str(outputs), *words])


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def shares(found: list[dict[str, Any]]) -> np.ndarray:
    return np.array([[row["probabilities"][name] for name in LABELS] for row in found])


def softmax(table: pa.Table) -> np.ndarray:
    logits = np.stack([table["logit_0"].to_numpy(), table["logit_1"].to_numpy()], 1).astype(np.float64)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("ptq", []),
        ("fp32", ["--precision", "fp32"]),
        ("fp32", ["--stage", "fp32", "--threads", "1"]),
        ("onnx", ["--runtime", "onnxruntime"]),
    ],
)
def test_predictions_are_those_of_the_runs_evaluation(
    finished: Path, rows: Path, stage: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(finished, rows, *words) == 0
    found, left = lines(capsys.readouterr().out), evaluated(finished, stage)
    assert [row["index"] for row in found] == list(range(len(left)))
    assert [LABELS.index(row["prediction"]) for row in found] == left["prediction"].to_pylist()
    expected = softmax(left)
    assert np.ptp(expected[:, 0]) > 0.01  # every row has its own
    assert np.allclose(shares(found), expected, rtol=1e-12, atol=0)
    told = np.array([LABELS.index(row["prediction"]) for row in found])
    assert score(("accuracy",), told, left["label"].to_numpy()) == record_of(finished).scores[stage]


def test_neither_batches_nor_parts_change_predictions_or_their_order(
    finished: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(finished, rows) == 0
    whole = lines(capsys.readouterr().out)
    for batch, part in ((1, 1024), (7, 7), (64, 16)):
        monkeypatch.setattr(predict, "PART", part)
        assert ask(finished, rows, "--batch-size", str(batch)) == 0
        found = lines(capsys.readouterr().out)
        assert [row["index"] for row in found] == [row["index"] for row in whole]
        # sums in another order may turn a rounding of the simulated quantization
        assert np.abs(shares(found) - shares(whole)).max() < 0.02
        same = [ours["prediction"] == theirs["prediction"] for ours, theirs in zip(found, whole, strict=True)]
        near = np.abs(shares(whole)[:, 0] - 0.5) < 0.02
        assert all(same | near)


def test_all_kinds_of_output_say_the_same(
    finished: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("jsonl", "csv", "parquet"):
        assert ask(finished, rows, "--keep", "--output", str(tmp_path / f"out.{ending}")) == 0
    assert not capsys.readouterr().out
    found = lines((tmp_path / "out.jsonl").read_text())
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == found
    with (tmp_path / "out.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["prediction"] for row in table] == [row["prediction"] for row in found]
    assert [float(row["probabilities.negative"]) for row in table] == shares(found)[:, 0].tolist()
    given = lines(rows.read_text())
    for part in (found, pq.read_table(tmp_path / "out.parquet").to_pylist()):
        assert [row["sentence"] for row in part] == [row["sentence"] for row in given]
    assert list(found[0]) == ["index", *given[0], "prediction", "probabilities"]
    assert sorted(file.name for file in tmp_path.glob("out*")) == ["out.csv", "out.jsonl", "out.parquet"]


def test_a_bar_does_not_take_what_is_printed(
    finished: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """rich puts itself in the place of standard output while it draws on a terminal."""
    monkeypatch.setattr("qexp.progress.console.Console", partial(Console, force_terminal=True))
    monkeypatch.setattr(predict, "PART", 8)
    plain = predict._of_run

    def drawing(*args: Any) -> Any:
        predictor, ctx = plain(*args)
        ctx.console.progress = True
        return predictor, ctx

    monkeypatch.setattr(predict, "_of_run", drawing)
    assert ask(finished, rows) == 0
    shown = capsys.readouterr()
    assert len(lines(shown.out)) == len(lines(rows.read_text()))
    assert "predict" in shown.err


def test_an_interrupt_leaves_whole_rows_or_nothing(
    finished: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, parts = Predictor.predict, []

    def interrupted(self: Predictor, part: Any, advance: Any) -> pa.Table:
        parts.append(part)
        if len(parts) == stop:
            raise KeyboardInterrupt
        return plain(self, part, advance)

    monkeypatch.setattr(Predictor, "predict", interrupted)
    monkeypatch.setattr(predict, "PART", 8)
    for ending, stop in (("jsonl", 3), ("csv", 3), ("parquet", 3), ("csv", 1)):
        parts.clear()
        assert (
            ask(finished, rows, "--batch-size", "8", "--output", str(tmp_path / f"p.{ending}")) == INTERRUPTED
        )
        told, partial_file = capsys.readouterr().err, tmp_path / f"p.partial.{ending}"
        assert not (tmp_path / f"p.{ending}").exists()
        if stop == 1:
            assert "no predictions were written" in told
            assert not partial_file.exists()
            continue
        assert f"{partial_file} holds the predictions of the first 16 rows" in told
        count = {
            "jsonl": lambda path: len(lines(path.read_text())),
            "csv": lambda path: len(path.read_text().splitlines()) - 1,
            "parquet": lambda path: pq.read_table(path).num_rows,
        }[ending](partial_file)
        assert count == 16
        partial_file.unlink()


def test_a_bad_row_later_on_names_itself_and_what_was_written(
    finished: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "PART", 8)
    text = rows.read_text().splitlines()
    text[20] = '{"text": "no sentence"}'
    rows.write_text("\n".join(text))
    assert ask(finished, rows, "--batch-size", "8") == 2
    shown = capsys.readouterr()
    assert len(lines(shown.out)) == 16
    assert "line 21: no column 'sentence'; present are text; rename the column" in shown.err
    assert "the predictions of the first 16 rows were written" in shown.err


def test_long_texts_are_cut_as_in_training_and_counted(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.txt"
    path.write_text("the old man sees the bird\n" + "cat " * 500 + "\n" + "cat " * 900 + "\n")
    assert ask(finished, path) == 0
    shown = capsys.readouterr()
    found = lines(shown.out)
    assert "2 rows were longer than task.max_length=64 tokens and were cut, as in training" in shown.err
    assert found[1]["probabilities"] == found[2]["probabilities"] != found[0]["probabilities"]


def test_a_graph_that_is_not_there_is_exported_and_said(
    finished: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a run with ``deploy=none``."""
    import shutil

    outputs = tmp_path / "copy"
    shutil.copytree(finished, outputs)
    shutil.rmtree(outputs / "artifacts" / "7-onnx")
    (file,) = records_folder(outputs).glob("*.json")
    tree = json.loads(file.read_text()) | {"bytes": None, "parity": None}
    file.write_text(json.dumps(tree))
    assert ask(outputs, rows, "--runtime", "onnxruntime") == 0
    shown = capsys.readouterr()
    assert "exported no int8 graph: exporting it now" in shown.err
    assert re.search(r"7-onnx +built", shown.err)
    assert np.allclose(shares(lines(shown.out)), softmax(evaluated(finished, "onnx")), rtol=1e-12)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--precision", "fp16"], "--precision fp16: torch computes as the run's evaluation did"),
        (["--precision", "int8", "--stage", "fp32"], "--precision: the model fp32 of a run is not"),
        (["--stage", "qat"], "has no 5-qat"),
        (["--output", "p.txt"], "--output p.txt: .txt is no kind of predictions; allowed are .jsonl"),
        (["--output", "/nowhere/p.csv"], "--output /nowhere/p.csv: No such file or directory; make room"),
    ],
)
def test_mistakes_are_named(
    finished: Path, rows: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(finished, rows, *words) == 2
    shown = capsys.readouterr()
    assert told in shown.err
    assert not shown.out


def test_rows_are_not_overwritten_by_their_predictions(
    finished: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = rows.read_text()
    assert ask(finished, rows, "--output", str(rows)) == 2
    assert "these are the rows themselves" in capsys.readouterr().err
    assert rows.read_text() == before


def test_a_run_that_is_not_there_or_failed(
    finished: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main(["zz", str(rows), "--outputs", str(finished)]) == 2
    assert "no Record's key begins so" in capsys.readouterr().err
    tree = json.loads(record_of(finished).to_json())
    tree |= {
        "status": "failed",
        "error": {"type": "TrainingError", "message": "loss is nan", "traceback": ""},
    }
    (tmp_path / "failed.json").write_text(json.dumps(tree))
    assert predict.main([str(tmp_path / "failed.json"), str(rows), "--outputs", str(finished)]) == 2
    told = capsys.readouterr().err
    assert "failed (loss is nan): mend that, and run it again:\n  python -m qexp task=sst2" in told


def test_standard_input_and_a_reader_that_goes(finished: Path, tmp_path: Path) -> None:
    """As in ``python -m qexp predict RUN - < texts | head -1``: the process ends quietly."""
    words = [
        sys.executable,
        "-m",
        "qexp",
        "predict",
        record_of(finished).key,
        "-",
        "--outputs",
        str(finished),
    ]
    (tmp_path / "texts").write_bytes("the naïve man sees the bird\n".encode() * 4000)
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    pipe = subprocess.PIPE
    with (
        (tmp_path / "texts").open("rb") as texts,
        subprocess.Popen(words, stdin=texts, stdout=pipe, stderr=pipe, env=environment) as writer,
    ):
        assert writer.stdout and writer.stderr
        assert json.loads(writer.stdout.readline())["index"] == 0
        writer.stdout.close()
        told = writer.stderr.read().decode()
        assert writer.wait() == 0
    assert "Traceback" not in told
    assert "Error" not in told
