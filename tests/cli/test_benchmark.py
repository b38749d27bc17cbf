"""``qexp bench`` on finished runs of a tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qexp.cli.benchmark import main
from qexp.config import Machine
from qexp.errors import FAILED, INTERRUPTED
from qexp.execution.job import OK
from qexp.records.record import read_all, records_folder
from tests.support.tiny_runs import TinyRuns

SHAPES = ("--batch-sizes", "1,2", "--lengths", "16", "--runs", "3", "--warmup", "0", "--threads", "1")


@pytest.fixture(scope="module")
def finished(tiny_models: Callable[[str], Path], tiny_runs: TinyRuns) -> Path:
    """Outputs of a run that was not exported."""
    return tiny_runs(("task=mrpc", "deploy=none", "method=ptq", f"model.name={tiny_models('bert')}"))


@pytest.fixture
def copy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QEXP_OUTPUTS", str(tmp_path / "copy"))
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of the run with its INT8 graph, which was not gated."""
    from qexp.analysis.find_run import find_record
    from qexp.analysis.run_models import graph_of, model_of
    from qexp.context import RunContext

    outputs = shutil.copytree(finished, tmp_path_factory.mktemp("exported") / "outputs")
    (key,) = keys(outputs)
    ctx = RunContext.at(outputs, Machine(threads=1, progress=False))
    graph_of(model_of(find_record(key, outputs), outputs), ctx)
    return outputs


def keys(outputs: Path) -> set[str]:
    return {record.key for record in read_all(records_folder(outputs))[0]}


def test_the_best_run_is_exported_gated_and_timed_without_training(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (before,) = keys(copy)
    assert main(["--runtimes", "onnxruntime", "--precisions", "fp32,int8", *SHAPES]) == OK
    told = capsys.readouterr().out
    assert "## engines: mrpc" in told
    (made,) = (each for each in read_all(records_folder(copy))[0] if each.key != before)
    assert {visit["stage"] for visit in made.stages if visit["state"] == "built"} <= {
        "6-scores", "7-onnx", "8-floor", "8-parity", "9-latency",
    }  # fmt: skip
    assert set(made.engines) == {"onnxruntime/fp32", "onnxruntime/int8"}
    for found in made.engines.values():
        assert found["gate"]["passed"]
        assert list(found["latency"]) == ["1x16", "2x16"]
        assert found["info"]["bytes"] > 0
    assert made.latency is not None
    assert made.latency["int8"]["1"] == made.engines["onnxruntime/int8"]["latency"]["1x16"]


@pytest.mark.slow
def test_a_runtime_that_is_not_there_is_told_and_the_others_go_on(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--runtimes", "onnxruntime,tensorrt", "--precisions", "int8", *SHAPES]
    assert main(words) == FAILED
    told = capsys.readouterr()
    assert "onnxruntime/int8" in told.out
    assert "tensorrt/int8 engine: " in told.out
    assert main([*words, "--lenient"]) == OK


def test_a_broken_gate_ends_with_an_error_code(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QEXP_OUTPUTS", str(shutil.copytree(exported, tmp_path / "copy")))
    monkeypatch.setattr("qexp.tasks.comparison.GateComparison.finite", False)
    assert main(["--runtimes", "onnxruntime", "--precisions", "int8", *SHAPES]) == FAILED


@pytest.mark.slow
def test_bisect_says_that_all_is_well(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runtimes", "onnxruntime", "--precisions", "int8", *SHAPES]) == OK
    (key,) = (each.key for each in read_all(records_folder(copy))[0] if each.engines)
    capsys.readouterr()
    assert main([key, "--bisect", "--runtimes", "onnxruntime"]) == OK
    assert "all layers agree with torch" in capsys.readouterr().out


def test_bisect_ends_with_an_error_code_where_a_layer_departs(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qexp.analysis.bisect import Divergence
    from qexp.analysis.closeness import Closeness

    far, near = Closeness(0.1, 0.2), Closeness(0.0, 0.0)
    found = Divergence("key", "fake", {"encoder.dense": near, "classifier": far}, near)
    monkeypatch.setattr("qexp.analysis.bisect.divergences", lambda *_: [found])
    (key,) = keys(copy)
    assert main([key, "--bisect", "--runtimes", "fake"]) == FAILED
    assert capsys.readouterr().out == (
        "key fake: classifier by 0.1 departs from torch; the exported file does not: the runtime (0)\n"
    )


def test_weights_that_are_gone_are_not_trained_again(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy / "artifacts" / "2-fp32")
    assert main(["--runtimes", "onnxruntime", *SHAPES]) == 2
    told = capsys.readouterr().err
    assert "2-fp32 of it are gone" in told
    assert "python -m qexp task=mrpc" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--runtimes", "onnx"), "deploy"),
        (("--precisions", "int8", "--runtimes", "onnxruntime", "--runs", "1"), "runs"),
        (("--batch-sizes", "0", "--runtimes", "onnxruntime"), "batch_sizes"),
        (("nosuchrun",), "no Record's key begins so"),
        (("--task", "cola"), "no quantized run"),
    ],
    ids=lambda each: each if isinstance(each, str) else " ".join(each),
)
def test_what_cannot_be_is_refused(
    words: tuple[str, ...], told: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(words)) == 2
    assert told in capsys.readouterr().err


def test_an_empty_folder_says_how_to_begin(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QEXP_OUTPUTS", str(outputs))
    assert main([]) == 2
    assert "python -m qexp task=mrpc quant=w8a8" in capsys.readouterr().err


def test_ctrl_c_says_that_it_goes_on(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qexp.context.RunContext.run_stage", interrupted)
    assert main(["--runtimes", "onnxruntime", *SHAPES]) == INTERRUPTED
    assert "goes on from here" in capsys.readouterr().err
    assert all(json.loads(file.read_text())["key"] for file in (copy / "records").glob("*.json"))
