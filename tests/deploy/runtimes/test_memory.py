"""Memory that a loaded engine takes, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

CHILD = """
import sys
from pathlib import Path
from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes import load
from qexp.deploy.runtimes.onnxruntime import engine

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

paths = [Path(word) for word in sys.argv[1:]]
kept = [load("onnxruntime", EngineSpec(paths[0], "int8", 1))]
before = resident()
kept.append(load("onnxruntime", EngineSpec(paths[1], "int8", 1)))
print(resident() - before)
"""


def _graph(path: Path, rows: int) -> Path:
    """Write a graph that looks rows up in an int8 table, and rounds them to int8 activations."""
    table = np.random.default_rng(0).integers(-127, 128, (rows, 256), dtype=np.int8)
    stored = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.float32(0.1), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("DequantizeLinear", ["rows", "scale", "zero"], ["values"]),
        helper.make_node("QuantizeLinear", ["values", "scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ("batch", "length"))]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", "length", 256))]
    graph = helper.make_graph(nodes, "lookup", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="resident memory is read from /proc")
def test_a_rewritten_graph_takes_little_more_than_its_file(tmp_path: Path) -> None:
    small, large = _graph(tmp_path / "small.onnx", 10), _graph(tmp_path / "large.onnx", 100_000)
    words = [sys.executable, "-c", CHILD, str(small), str(large)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert 1024 * int(done.stdout) < 1.5 * large.stat().st_size
