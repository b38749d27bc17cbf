#!/usr/bin/env bash
# ONNX Runtime 1.32.0, CPU: a float activation times an int8 weight behind DequantizeLinear (scale per output)
# becomes MatMulNBits, whose default accuracy level quantizes the activation to 8 bits as well. The file asks
# for float arithmetic; session.qdq_matmulnbits_accuracy_level=1 gives it.
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
nodes = [
    helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
    helper.make_node("MatMul", ["x", "wd"], ["y"]),
]
stored = [
    numpy_helper.from_array(generator.integers(-127, 128, (64, 32)).astype(np.int8), "w"),
    numpy_helper.from_array(generator.uniform(0.01, 0.02, 32).astype(np.float32), "ws"),
    numpy_helper.from_array(np.zeros(32, np.int8), "wz"),
]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, size]) for name, size in (("x", 64), ("y", 32))]
made = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], stored),
                         opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(made, full_check=True)

def run(level, **options):
    made_with = ort.SessionOptions()
    made_with.graph_optimization_level = level
    for name, value in options.items():
        made_with.add_session_config_entry(f"session.{name}", value)
    session = ort.InferenceSession(made.SerializeToString(), made_with, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]

print("onnxruntime", ort.__version__)
x = generator.normal(0, 1, (4, 64)).astype(np.float32)
expected = run(ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
seen = [run(ort.GraphOptimizationLevel.ORT_ENABLE_ALL, **options)
        for options in ({}, {"qdq_matmulnbits_accuracy_level": "1"})]
off = [float(np.abs(each - expected).max() / np.abs(expected).max()) for each in seen]
print(f"off by, of the largest output: expected below 1e-6, seen {off[0]:.1e} (with level 1: {off[1]:.1e})")
described = off[0] > 1e-3 and off[1] < 1e-6
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
