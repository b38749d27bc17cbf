#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU, precision f32: a pair of QuantizeLinear and DequantizeLinear of 16 bits is taken out
# together with its clipping, so that values beyond the grid come through as they are.
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
    helper.make_node("Tanh", ["x"], ["t"]),
    helper.make_node("QuantizeLinear", ["t", "s", "z"], ["q"]),
    helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    helper.make_node("Exp", ["d"], ["y"]),
]
stored = [
    numpy_helper.from_array(np.array(1e-5, np.float32), "s"), numpy_helper.from_array(np.array(0, np.int16), "z"),
]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y")]
made = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], stored),
                         opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(made, full_check=True)

print("openvino", openvino.get_version())
core = openvino.Core()
compiled = core.compile_model(core.read_model(made.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
x = np.array([-2, 0.1, 2], np.float32)
expected = np.exp(np.clip(np.round(np.tanh(x) / np.float32(1e-5)), -32768, 32767) * np.float32(1e-5))
unclipped = np.exp(np.tanh(x))
seen = compiled({"x": x})[0]
print(f"expected {expected}, seen {seen}")
described = bool(np.abs(seen - unclipped).max() < 1e-3 < np.abs(seen - expected).max())
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
