#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU, precision f32: a Clip behind a DequantizeLinear of int8 is computed on the integers, with
# bounds that are cut off to whole numbers. A value beyond a bound then ends short of it: -2.4 becomes -2.1.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import numpy as np, onnx, openvino
from onnx import TensorProto, helper, numpy_helper

nodes = [
    helper.make_node("QuantizeLinear", ["x", "one", "none"], ["q"]),
    helper.make_node("DequantizeLinear", ["q", "one", "none"], ["coarse"]),
    helper.make_node("Clip", ["coarse", "low", "high"], ["inside"]),
    helper.make_node("QuantizeLinear", ["inside", "s", "z"], ["r"]),
    helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
]
step = np.float32(0.3)
stored = [numpy_helper.from_array(np.array(value, kind), name) for name, value, kind in (
    ("one", 1, np.float32), ("none", 0, np.int8), ("s", step, np.float32), ("z", 8, np.uint8),
    ("low", -8 * step, np.float32), ("high", 7 * step, np.float32))]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y")]
made = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], stored),
                         opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(made, full_check=True)

print("openvino", openvino.get_version())
core = openvino.Core()
compiled = core.compile_model(core.read_model(made.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
x = np.array([-5, 1, 5], np.float32)
expected = np.round(np.clip(np.round(x), -8 * step, 7 * step) / step) * step
seen = compiled({"x": x})[0]
print(f"expected {expected}, seen {seen}")
described = bool(np.abs(seen - expected).max() > 0.25)
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
