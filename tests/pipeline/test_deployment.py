"""Deployment: the engine that counts for the run, and engines that are not available."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from qexp.artifacts.types import Latency
from qexp.execution.job import OK
from qexp.pipeline.deployment import _own
from qexp.pipeline.results import RunResults
from tests.conftest import experiment
from tests.support.jobs import QUICK, run


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        ([("onnxruntime", "int8"), ("onnxruntime", "fp32"), ("openvino", "int8")], ("onnxruntime", "int8")),
        ([("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "int8")], ("openvino", "fp32")),
        ([("tensorrt", "fp16")], ("tensorrt", "fp16")),
    ],
)
def test_the_runs_own_engine_is_of_its_result_in_its_first_runtime(asked: Any, own: Any) -> None:
    assert _own(asked) == own


def test_every_runtime_here_is_gated_and_the_absent_one_is_told(tiny_bert: Path, outputs: Path) -> None:
    code, record = run(
        "task=mrpc", "quant=w8a8", "method=ptq", f"model.name={tiny_bert}", *QUICK[:-1], "deploy=cpu",
        "deploy.runtimes=[onnxruntime,openvino,tensorrt,torch_int8]", "deploy.precisions=[int8,fp16]",
        "deploy.lengths=[16]", "deploy.batch_sizes=[2]", "deploy.runs=3", "deploy.real=true",
    )  # fmt: skip
    engines = record["engines"]
    assert code == OK, {name: found.get("gate", {}).get("reasons") for name, found in engines.items()}
    assert next(iter(engines)) == "onnxruntime/int8"
    for name in ("onnxruntime/int8", "onnxruntime/fp16", "openvino/int8", "torch_int8/int8"):
        assert engines[name]["gate"]["passed"], name
        assert list(engines[name]["latency"]) == ["2x16", "2xreal"]
        session = engines[name]["session"]  # a smoke budget leaves it out, and says so
        assert session["memory_bytes"] is session["load_seconds"] is None
        assert "budget.benchmark_runs=3" in session["reason"]
    assert engines["onnxruntime/int8"]["audit"]["integer_share"] > 50
    assert engines["onnxruntime/fp16"]["audit"]["integer_share"] == 0
    assert "tensorrt" in engines["tensorrt/int8"]["problems"]["engine"]
    assert record["scores"]["onnx"] == engines["onnxruntime/int8"]["scores"]
    assert record["latency"]["int8"]["2"] == engines["onnxruntime/int8"]["latency"]["2x16"]
    assert any("tensorrt/int8" in warning for warning in record["warnings"])


def test_memory_and_load_time_of_each_engine_stand_in_the_record(tiny_bert: Path, outputs: Path) -> None:
    words = (
        "task=mrpc", "quant=w8a8", "method=ptq", f"model.name={tiny_bert}", *QUICK, "deploy=onnxruntime",
        "deploy.batch_sizes=[2]", "budget.benchmark_runs=10",
    )  # fmt: skip
    code, record = run(*words)
    assert code == OK
    sessions = {name: engine["session"] for name, engine in record["engines"].items()}
    assert set(sessions) == {"onnxruntime/int8", "onnxruntime/fp32"}
    for found in sessions.values():
        assert set(found) == {"memory_bytes", "load_seconds"}
        assert 0 < found["memory_bytes"] < 2**30 and 0 < found["load_seconds"] < 60

    (facts,) = (outputs / "artifacts" / "9-latency").glob("*/facts.json")
    earlier = json.loads(facts.read_text())
    del earlier["sessions"]
    latency = Latency(facts.parent, "key")
    vars(latency)["facts"] = earlier
    results = RunResults()
    results.note("latency", latency)
    assert set(results.engines) == set(sessions)
    assert all("session" not in engine and engine["latency"] for engine in results.engines.values())


def test_a_float_model_has_no_int8(tiny_bert: Path) -> None:
    words = ("quant=fp32", "deploy=onnxruntime", "deploy.precisions=[int8]", "deploy.lengths=[16]")
    with pytest.raises(ValidationError, match="a float model has no int8"):
        experiment("task=mrpc", f"model.name={tiny_bert}", *QUICK[:-1], *words)
