#!/usr/bin/env bash
# onnx 1.23.2 with numpy 2.4.6, ReferenceEvaluator: GatherElements along an axis of 64 or more places is not computed,
# although ONNX sets no limit: places are handed to numpy.choose, which takes 63, and what is tried instead reads
# another axis. Lookups in relative positions, as in DeBERTa, end with an error, and a tensor of one column gives
# numbers of other rows without an error. ONNX Runtime computes the same graphs.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

ends = [helper.make_tensor_value_info(name, kind, ["rows", "columns"]) for name, kind in
        (("x", TensorProto.FLOAT), ("places", TensorProto.INT64), ("y", TensorProto.FLOAT))]
node = helper.make_node("GatherElements", ["x", "places"], ["y"], axis=0)
model = helper.make_model(helper.make_graph([node], "g", ends[:2], ends[2:]),
                          opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
onnx.checker.check_model(model, full_check=True)
session = onnxruntime.InferenceSession(model.SerializeToString())
print("onnx", onnx.__version__, "numpy", np.__version__, "onnxruntime", onnxruntime.__version__)
seen = {}
for rows in (63, 64, 200):
    for columns in (3, 1):
        x = np.arange(columns * rows, dtype=np.float32).reshape(rows, columns)
        places = np.zeros((rows, columns), np.int64)
        expected = np.take_along_axis(x, places, 0)
        feed = {"x": x, "places": places}
        assert np.array_equal(session.run(None, feed)[0], expected)
        try:
            found = ReferenceEvaluator(model).run(None, feed)[0]
            seen[rows, columns] = "equal" if np.array_equal(found, expected) else f"row 5 is {found[5]}, expected {expected[5]}"
        except (ValueError, IndexError) as error:
            seen[rows, columns] = f"{type(error).__name__}: {error}"
        print(f"{rows} rows, {columns} columns: ONNX Runtime equal; the reference: {seen[rows, columns]}")
described = (seen[63, 3] == seen[63, 1] == "equal"
             and all("Error" in seen[rows, 3] and seen[rows, 1].startswith("row 5") for rows in (64, 200)))
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
