#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU: a graph is refused ("convert->constant_fold(...) failed", an internal check) where rows of
# an INT8 table with one scale are added to rows of a floating-point table and multiplied by INT8 weights, and the
# product is quantized behind a Reshape and a Transpose, as queries and keys of an encoder are whose token types stay in
# floating point. With the pair before the Reshape instead, or with token types in INT8, it compiles.
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

random = np.random.default_rng(0)
stored = {
    "words": random.integers(-127, 128, (50, 32)).astype(np.int8),
    "weights": random.integers(-127, 128, (32, 32)).astype(np.int8),
    "types": random.normal(0, 0.02, (2, 32)).astype(np.float32),
    "s": np.float32(0.02), "z": np.int8(0), "heads": np.array([0, 0, -1, 16]),
}


def encoder(*, integer_types: bool, pair_first: bool) -> onnx.ModelProto:
    node = helper.make_node
    rows = {"words": "int8", "types": "int8" if integer_types else "float"}
    arrays = dict(stored)
    if integer_types:
        arrays["types"] = random.integers(-127, 128, (2, 32)).astype(np.int8)
    nodes = []
    for table, kind in rows.items():
        nodes.append(node("Gather", [table, f"{table}_ids"], [f"{table}_rows"]))
        if kind == "int8":
            nodes.append(node("DequantizeLinear", [f"{table}_rows", "s", "z"], [f"{table}_float"]))
    last = "types_float" if integer_types else "types_rows"
    nodes += [
        node("Add", ["words_float", last], ["sum"]),
        node("DequantizeLinear", ["weights", "s", "z"], ["w"]),
        node("MatMul", ["sum", "w"], ["product"]),
    ]
    split = lambda x, y: [node("Reshape", [x, "heads"], [y + "4"]), node("Transpose", [y + "4"], [y], perm=[0, 2, 1, 3])]
    pair = lambda x, y: [node("QuantizeLinear", [x, "s", "z"], [y + "q"]), node("DequantizeLinear", [y + "q", "s", "z"], [y])]
    steps = (pair, split) if pair_first else (split, pair)
    nodes += steps[0]("product", "between") + steps[1]("between", "queries")
    nodes.append(node("Transpose", ["queries"], ["y"], perm=[0, 1, 3, 2]))
    ends = [helper.make_tensor_value_info(f"{table}_ids", TensorProto.INT64, ["rows", 5]) for table in rows]
    made = helper.make_graph(nodes, "g", ends, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2, 16, 5])],
                             [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


print("openvino", openvino.get_version())
core = openvino.Core()
seen = {}
for types in (False, True):
    for first in (False, True):
        name = f"{'int8' if types else 'float'} types, pair {'before' if first else 'behind'} the Reshape"
        try:
            core.compile_model(core.read_model(encoder(integer_types=types, pair_first=first).SerializeToString()), "CPU")
            seen[types, first] = "compiled"
        except RuntimeError as error:
            seen[types, first] = next(line for line in str(error).splitlines() if "Check" in line)
        print(f"{name}: {seen[types, first]}")
described = "constant_fold" in seen[False, False] and {seen[key] for key in seen if any(key)} == {"compiled"}
print("as described" if described else "CHANGED: not as described any more")
sys.exit(0 if described else 1)
PYTHON
