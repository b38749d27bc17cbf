#!/usr/bin/env bash
# OpenVINO 2026.4.1: the ONNX frontend refuses a DequantizeLinear in blocks (block_size, opset 21) whose scales are
# computed for a number of rows that is left open, such as those that a Gather takes out of a quantized table. The same
# lookup is read where the number of rows is fixed, where scales are one for each row (axis), and where the whole table
# is dequantized before the Gather, which costs a table of floats. ONNX asks nothing of where scales come from.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

ROWS, WIDTH, BLOCK = 10, 64, 32
draw = np.random.default_rng(0)
TABLE = draw.integers(-127, 128, (ROWS, WIDTH)).astype(np.int8)
SCALES = draw.uniform(0.001, 0.01, (ROWS, WIDTH // BLOCK)).astype(np.float32)
PLACES = np.array([1, 5, 7])


def gather(values: str, result: str) -> onnx.NodeProto:
    return helper.make_node("Gather", [values, "places"], [result])


def dequantize(integers: str, scales: str, result: str, **attributes: int) -> onnx.NodeProto:
    return helper.make_node("DequantizeLinear", [integers, scales], [result], **attributes)


IN_BLOCKS = {"axis": 1, "block_size": BLOCK}
ROWS_IN_BLOCKS = [gather("table", "rows"), gather("scales", "own"), dequantize("rows", "own", "y", **IN_BLOCKS)]
FORMS = {
    "scales of the rows, one each": (
        [gather("table", "rows"), gather("scales", "own"), dequantize("rows", "own", "y", axis=0)],
        SCALES[:, 0].copy(), "n"),
    "whole table in blocks, then Gather": (
        [dequantize("table", "scales", "whole", **IN_BLOCKS), gather("whole", "y")], SCALES, "n"),
    "scales of 3 rows, in blocks": (ROWS_IN_BLOCKS, SCALES, len(PLACES)),
    "scales of n rows, in blocks": (ROWS_IN_BLOCKS, SCALES, "n"),
}


def result(nodes: list[onnx.NodeProto], scales: np.ndarray, number: int | str) -> str:
    ends = [helper.make_tensor_value_info("places", TensorProto.INT64, [number]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [number, WIDTH])]
    constants = [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(scales, "scales")]
    graph = helper.make_graph(nodes, "lookup", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    right = ReferenceEvaluator(model).run(None, {"places": PLACES})[0]
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    try:
        compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
    except RuntimeError as error:
        return "refused" if "DequantizeLinear" in str(error) else str(error)
    return "right" if np.array_equal(next(iter(compiled({"places": PLACES}).values())), right) else "wrong"


print("openvino", openvino.__version__, "onnx", onnx.__version__)
seen = {name: result(*form) for name, form in FORMS.items()}
for name, outcome in seen.items():
    print(f"{name:<36} {outcome}")
described = list(seen.values()) == ["right", "right", "right", "refused"]
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
