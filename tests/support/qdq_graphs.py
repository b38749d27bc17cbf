"""Small Q/DQ graphs, and their outputs by plain arithmetic."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from qexp.deploy.runtimes.onnxruntime.session import new_session

SIZE = 64


SCALE = np.float32(0.5)


def _graph(products: int = 1, activation: type | None = np.int8, zero_point: int = 0) -> onnx.ModelProto:
    """x int64 -> float -> (Q/DQ) -> products with stored int8 weights -> their sum."""
    generator = np.random.default_rng(0)
    stored = [numpy_helper.from_array(np.full(SIZE, 0.25, np.float32), "weight_scale")]
    nodes = [helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT)]
    if activation is not None:
        stored += [
            numpy_helper.from_array(np.array(SCALE), "scale"),
            numpy_helper.from_array(np.array(zero_point, activation), "zero"),
        ]
        nodes.append(helper.make_node("QuantizeLinear", ["float", "scale", "zero"], ["q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["read"]))
    for index in range(products):
        weight = generator.integers(100, 128, (SIZE, SIZE)).astype(np.int8)
        stored.append(numpy_helper.from_array(weight, f"w{index}"))
        stored.append(numpy_helper.from_array(np.zeros(SIZE, np.int8), f"w{index}_zero"))
        names = [f"w{index}", "weight_scale", f"w{index}_zero"]
        nodes.append(helper.make_node("DequantizeLinear", names, [f"wf{index}"], axis=1))
        read = "float" if activation is None else "read"
        nodes.append(helper.make_node("MatMul", [read, f"wf{index}"], [f"y{index}"]))
    nodes.append(helper.make_node("Sum", [f"y{index}" for index in range(products)], ["logits"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", SIZE])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", SIZE])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _plainly(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = new_session(model, options)
    return session.run(None, {"x": values})[0]
