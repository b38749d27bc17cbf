#!/usr/bin/env bash
# ONNX Runtime 1.32.0 refuses valid Q/DQ graphs of opset 21 and above, depending on one Reshape.
#
# A value is quantized to int8, dequantized, reshaped, and multiplied by a stored int8 weight. In opset 20 the
# session is created, and its product is right. With opset 21 or 23 and the same nodes it is not:
#     Node (r_q) Op (QuantizeLinear) [TypeInferenceError] output_dtype INT8 does not match y_zero_point type UINT8
# Nobody wrote r_q. From the optimization level "extended" on, the runtime moves the pair past the Reshape, and
# gives the quantizer that it adds the attribute output_dtype=INT8, which exists from opset 21 on. On x86 it then
# turns int8 activations into uint8, zero points and all, but leaves that attribute. The graph loads at the level
# "basic", without the Reshape, and with activations that are uint8 with zero point 128 from the start, which are
# the same numbers. INT4 weights need opset 21, so W4A8 graphs meet this.
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


def graph(opset: int, kind: type, reshaped: bool) -> bytes:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        *([helper.make_node("Reshape", ["d", "shape"], ["r"])] if reshaped else []),
        helper.make_node("DequantizeLinear", ["w", "scale", "weight_zero"], ["floats"]),
        helper.make_node("MatMul", ["r" if reshaped else "d", "floats"], ["y"]),
    ]
    width = 4 if reshaped else 8
    stored = {
        "scale": np.float32(0.1), "zero": kind(0 if kind is np.int8 else 128), "weight_zero": np.int8(0),
        "w": np.resize(np.arange(-8, 8), (width, 4)).astype(np.int8),
        **({"shape": np.array([-1, 4])} if reshaped else {}),
    }
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])], [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [4 if reshaped else 2, 4])]
    made = helper.make_graph(nodes, "g", *ends, [numpy_helper.from_array(value, name) for name, value in stored.items()])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def result(model: bytes, level: str) -> str:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no other base in common
        return "refused" if "output_dtype INT8 does not match y_zero_point type UINT8" in str(error) else str(error)
    x = np.linspace(-5, 5, 16, dtype=np.float32).reshape(2, 8)
    return f"runs, sum {session.run(None, {'x': x})[0].sum():.3f}"


print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__)
seen = {}
for opset in (20, 21, 23):
    for kind in (np.int8, np.uint8):
        for reshaped in (True, False):
            for level in ("ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"):
                key = opset, kind.__name__, reshaped, level
                seen[key] = result(graph(opset, kind, reshaped), level)
                print(*key[:2], "with" if reshaped else "without", "Reshape", level, "->", seen[key])
sums = {reshaped: {text for (_, _, with_it, _), text in seen.items() if with_it is reshaped and text != "refused"}
        for reshaped in (True, False)}
refused = {key for key, text in seen.items() if text == "refused"}
expected = {(opset, "int8", True, level) for opset in (21, 23) for level in ("ENABLE_EXTENDED", "ENABLE_ALL")}
described = refused == expected and all(len(found) == 1 for found in sums.values())
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
