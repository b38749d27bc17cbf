#!/usr/bin/env bash
# ONNX Runtime 1.32.0, CPU: a Gemm whose weight is a float constant, between DequantizeLinear and
# QuantizeLinear, gets an int8 weight of ONNX Runtime's own making, with one scale for the whole matrix. Nothing
# in the file asks for it, and outputs of channels with small weights are lost.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

generator = np.random.default_rng(0)
weight = generator.normal(0, 1, (16, 8)) * np.array([1, 1, 1, 1, 1, 1, 1, 1e-3])  # the last channel is small
nodes = [
    helper.make_node("QuantizeLinear", ["x", "xs", "z"], ["xq"]),
    helper.make_node("DequantizeLinear", ["xq", "xs", "z"], ["xd"]),
    helper.make_node("Gemm", ["xd", "w", "b"], ["g"]),
    helper.make_node("QuantizeLinear", ["g", "gs", "z"], ["gq"]),
    helper.make_node("DequantizeLinear", ["gq", "gs", "z"], ["y"]),
]
stored = [numpy_helper.from_array(np.array(value, kind), name) for name, value, kind in (
    ("xs", 0.05, np.float32), ("gs", 0.002, np.float32), ("z", 128, np.uint8),
    ("w", weight, np.float32), ("b", np.zeros(8), np.float32))]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [32, size]) for name, size in (("x", 16), ("y", 8))]
made = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], stored),
                         opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
onnx.checker.check_model(made, full_check=True)

def run(level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0][:, -1]

print("onnxruntime", ort.__version__)
x = generator.normal(0, 2, (32, 16)).astype(np.float32)
expected = run(ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
seen = run(ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
print(f"last channel, expected: {expected[:6]}\nlast channel, seen:     {seen[:6]}")
described = bool(np.any(expected) and not np.allclose(seen, expected, atol=0.0021))
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
