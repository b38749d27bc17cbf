#!/usr/bin/env bash
# ONNX Runtime 1.32.0: a session that is made from bytes keeps the bytes for as long as it lives, so a model with
# integer weights, which a program rewrote in memory before it handed it over, takes about twice the memory of the same
# model loaded from its path: the session needs the weights once, and the serialized model stays beside them.
# Ends with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cat > "$folder/make.py" <<'PYTHON'
import sys
import numpy as np, onnx
from onnx import TensorProto, helper, numpy_helper

table = np.random.default_rng(0).integers(-127, 128, (262_144, 256), dtype=np.int8)
stored = [
    numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.float32(0.1), "scale"),
    numpy_helper.from_array(np.int8(0), "zero"),
]
nodes = [
    helper.make_node("Gather", ["table", "ids"], ["rows"]),
    helper.make_node("DequantizeLinear", ["rows", "scale", "zero"], ["values"]),
]
inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ("n",))]
outputs = [helper.make_tensor_value_info("values", TensorProto.FLOAT, ("n", 256))]
graph = helper.make_graph(nodes, "lookup", inputs, outputs, stored)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), sys.argv[1])
PYTHON
cat > "$folder/load.py" <<'PYTHON'
import ctypes, gc, sys
from pathlib import Path
import numpy as np, onnxruntime

def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024

kind, path = sys.argv[1:]
before = resident()
source = path if kind == "path" else Path(path).read_bytes()
session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
del source
session.run(None, {"ids": np.arange(4)})
print(round(resident() - before))
PYTHON
python="$folder/venv/bin/python"
"$python" "$folder/make.py" "$folder/model.onnx"
path=$("$python" "$folder/load.py" path "$folder/model.onnx")
bytes=$("$python" "$folder/load.py" bytes "$folder/model.onnx")
size=$(($(stat -c %s "$folder/model.onnx") / 1048576))
"$python" -c 'import onnxruntime; print("onnxruntime", onnxruntime.__version__)'
echo "file of $size MiB: resident memory grows by $path MiB from its path, by $bytes MiB from its bytes"
test "$((bytes - path))" -gt "$((size * 3 / 4))"
