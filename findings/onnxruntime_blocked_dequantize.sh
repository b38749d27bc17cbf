#!/usr/bin/env bash
# ONNX Runtime 1.32.0, CPU: an int8 weight behind a DequantizeLinear in blocks (block_size, opset 21), multiplied by a
# quantized activation, gives wrong numbers without a word for some batches, and an error for the others.
#
# The graph optimizer replaces DequantizeLinear and MatMul by MatMulIntegerToFloat, and drops block_size. The scales,
# one row for each block of inputs and one column for each output, are then broadcast with the result: where the
# batch has as many rows as there are blocks, or one, each row of the result is multiplied by the scales of one block.
# Any other number of rows ends in "axis == 1 || axis == largest was false". Right is ONNX's definition, which the
# runtime follows itself with all optimizations off.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

INPUTS, OUTPUTS, BLOCK = 64, 8, 32
draw = np.random.default_rng(0)
stored = {
    "scale": np.float32(0.02), "zero": np.uint8(128),
    "weight": draw.integers(-127, 128, (INPUTS, OUTPUTS)).astype(np.int8),
    "scales": draw.uniform(0.001, 0.01, (INPUTS // BLOCK, OUTPUTS)).astype(np.float32),
}
nodes = [
    helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
    helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
    helper.make_node("DequantizeLinear", ["weight", "scales"], ["w"], axis=0, block_size=BLOCK),
    helper.make_node("MatMul", ["d", "w"], ["y"]),
]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("x", INPUTS), ("y", OUTPUTS))]
constants = [numpy_helper.from_array(value, name) for name, value in stored.items()]
graph = helper.make_graph(nodes, "blocks", ends[:1], ends[1:], constants)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(model, full_check=True)


def session(level: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    options.add_session_config_entry("session.x64quantprecision", "1")  # so that no product saturates on any CPU
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def result(level: str, x: np.ndarray) -> str:
    right = ReferenceEvaluator(model).run(None, {"x": x})[0]
    try:
        seen = session(level).run(None, {"x": x})[0]
    except Exception as error:  # its exceptions have no other base in common
        return "error" if "MatMulIntegerToFloat" in str(error) else str(error)
    return "right" if np.abs(seen - right).max() < 1e-4 else f"wrong by {np.abs(seen - right).max():.2f} of {np.abs(right).max():.2f}"


print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__)
found = {}
for level in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"):
    for rows in (1, 2, 3, 4):
        x = np.random.default_rng(rows).normal(size=(rows, INPUTS)).astype(np.float32)
        found[level, rows] = result(level, x).split(" by ")[0]
        print(f"{level:<16} {rows} rows, {INPUTS // BLOCK} blocks: {result(level, x)}")
fused = {1: "wrong", 2: "wrong", 3: "error", 4: "error"}
described = all(
    seen == (fused[rows] if level in ("ENABLE_EXTENDED", "ENABLE_ALL") else "right")
    for (level, rows), seen in found.items()
)
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
