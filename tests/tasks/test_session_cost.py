"""Memory and load time of engines, measured in processes of their own."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qexp.config import BeamSearch
from qexp.deploy.onnx.export_translation import export_translation
from qexp.tasks import session_cost
from qexp.tasks.session_cost import SessionRequest, cost_of, measure_session, resident_bytes
from tests.support.sequence_models import batch, build

ROWS, WIDTH = 60_000, 128
BATCH = {"input_ids": np.arange(8).reshape(1, 8), "attention_mask": np.ones((1, 8), np.int64)}
linux = pytest.mark.skipif(
    not Path("/proc/self/statm").is_file(), reason="resident memory is read from /proc"
)


def _graph(path: Path, rows: int) -> Path:
    """Write a graph that looks rows up in a float table and multiplies them by a matrix."""
    generator = np.random.default_rng(0)
    stored = [
        numpy_helper.from_array(generator.normal(size=size).astype(np.float32), name)
        for name, size in (("table", (rows, WIDTH)), ("matrix", (WIDTH, 4)))
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "matrix"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ("batch", "length"))]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", "length", 4))]
    graph = helper.make_graph(nodes, "lookup", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def _request(path: Path, runtime: Any = "onnxruntime") -> SessionRequest:
    return SessionRequest(runtime, "fp32", 1, path)


@linux
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch_int8"])
def test_an_engine_takes_at_least_the_memory_of_its_weights(runtime: str, tmp_path: Path) -> None:
    file = _graph(tmp_path / "large.onnx", ROWS)
    found = measure_session(_request(file, runtime), BATCH)
    assert "reason" not in found
    assert found["memory_bytes"] is not None and found["load_seconds"] is not None
    assert 0.98 * file.stat().st_size < found["memory_bytes"] < 2**30
    assert 0 < found["load_seconds"] < 60


@linux
def test_memory_that_this_process_holds_and_has_freed_hides_nothing(tmp_path: Path) -> None:
    file = _graph(tmp_path / "large.onnx", ROWS)
    held = [np.ones(2**20) for _ in range(40)]
    del held
    found = measure_session(_request(file), BATCH)["memory_bytes"]
    assert found is not None and found > 0.98 * file.stat().st_size


@linux
def test_the_memory_of_this_process_grows_with_what_it_touches() -> None:
    size = 2**25
    before = resident_bytes()
    with mmap.mmap(-1, size) as kept:  # an array might get memory that this process has freed
        kept.write(b"1" * size)
        after = resident_bytes()
    assert before is not None and after is not None
    assert 0.9 * size < after - before < 3 * size


def test_no_torch_is_imported_for_a_runtime_without_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np; from qexp.tasks.session_cost import *\n"
        "cost_of(SessionRequest('onnxruntime', 'fp32', 1, Path(sys.argv[1])), {'input_ids': np.ones((1, 2), "
        "np.int64)}); print(sorted({'torch', 'transformers', 'openvino', 'sklearn'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, str(_graph(tmp_path / "small.onnx", 10))]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_system_without_resident_memory_has_the_time_and_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_cost, "STATM", tmp_path / "absent")
    found = cost_of(_request(_graph(tmp_path / "small.onnx", 10)), BATCH)
    assert found["memory_bytes"] is None and found["load_seconds"]
    assert "/proc" in found["reason"]


def test_a_refused_graph_has_the_runtimes_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    found = measure_session(_request(tmp_path / "broken.onnx"), BATCH)
    assert (found["memory_bytes"], found["load_seconds"]) == (None, None)
    assert "ended with 1" in found["reason"] and "broken.onnx" in found["reason"]
    assert "\n" not in found["reason"]


def test_a_process_that_takes_too_long_or_is_killed_or_never_starts_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _graph(tmp_path / "small.onnx", 10)
    late = measure_session(_request(file), BATCH, seconds=0.01)
    assert late["memory_bytes"] is None and "more than 0.01 s" in late["reason"]
    ends: list[Any] = [subprocess.CompletedProcess([], -9, b"", b""), OSError(11, "no more processes")]

    def run(*_: Any, **__: Any) -> Any:
        end = ends.pop(0)
        if isinstance(end, OSError):
            raise end
        return end

    monkeypatch.setattr(subprocess, "run", run)
    assert measure_session(_request(file), BATCH)["reason"].endswith("was killed by signal 9")
    assert measure_session(_request(file), BATCH)["reason"].endswith("no more processes")


def test_a_process_that_ends_well_without_a_result_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, b"hello", b""))
    found = measure_session(_request(tmp_path / "small.onnx"), BATCH)
    assert found["memory_bytes"] is None and "without a result" in found["reason"]


def test_a_request_comes_back_from_its_text(tmp_path: Path) -> None:
    for search in (None, BeamSearch(beams=3, max_new_tokens=5)):
        request = SessionRequest("openvino", "int8", 2, tmp_path, search)
        assert SessionRequest.from_json(request.to_json()) == request


@linux
@pytest.mark.slow
def test_a_translator_is_both_of_its_graphs_and_a_search(tmp_path: Path) -> None:
    model = build("marian")
    export_translation(model, tmp_path, example=batch())
    source = {name: batch()[name].numpy() for name in ("input_ids", "attention_mask")}
    search = BeamSearch(beams=2, max_new_tokens=5)
    found = measure_session(SessionRequest("onnxruntime", "fp32", 1, tmp_path, search), source)
    assert "reason" not in found
    assert found["memory_bytes"] and found["load_seconds"]
