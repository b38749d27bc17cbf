"""Conversion of a float32 graph to 16-bit floating point, for runtimes that compute in the graph's types."""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from qexp.errors import DeployError

Half = Literal["fp16", "bf16"]
TYPES: dict[Half, tuple[int, Any]] = {
    "fp16": (TensorProto.FLOAT16, np.float16),
    "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}
"""ONNX and numpy types by name."""
OPSET = 19
"""First opset in which scales of ``QuantizeLinear`` may have these types."""


def to_half(model: ModelProto, kind: Half) -> bool:
    """Convert a graph to 16-bit arithmetic in place; its inputs and outputs keep their types.

    Numbers beyond the range of the type, such as the lowest float32 of a mask, are clamped to it. Scales of
    grids are rounded as well, in FP16 to 1 part in 2048: a runtime multiplies by them in that type.

    Returns:
        Whether the graph changed: one without float32 initializers is left alone.

    Raises:
        DeployError: The opset is too old, or a scale is so small that it would become zero.
    """
    onnx_type, dtype = TYPES[kind]
    floats = [each for each in model.graph.initializer if each.data_type == TensorProto.FLOAT]
    if not floats:
        return False
    opset = next(each.version for each in model.opset_import if each.domain == "")
    if opset < OPSET:
        raise DeployError(f"opset {opset} has no scales of {kind}; export with opset {OPSET} or above")
    _convert_stored(model, floats, dtype)
    for node in model.graph.node:
        _convert_node(node, onnx_type, dtype)
    _convert_ends(model, onnx_type)
    return True


def _convert_stored(model: ModelProto, floats: list[TensorProto], dtype: Any) -> None:
    quantizing = ("QuantizeLinear", "DequantizeLinear")
    scales = {node.input[1] for node in model.graph.node if node.op_type in quantizing}
    for tensor in floats:
        values = numpy_helper.to_array(tensor)
        small = _rounded(values, dtype)
        if tensor.name in scales and np.any(small == 0):
            raise DeployError(
                f"{tensor.name}: a scale of {values.min():.3g} is zero in 16-bit floating point; "
                "calibrate with more data, or leave this site out (placement.exclude)"
            )
        tensor.CopyFrom(numpy_helper.from_array(small, tensor.name))


def _convert_node(node: NodeProto, onnx_type: int, dtype: Any) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = onnx_type
        if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(attribute.t)
            attribute.t.CopyFrom(numpy_helper.from_array(_rounded(values, dtype), attribute.t.name))


def _convert_ends(model: ModelProto, onnx_type: int) -> None:
    graph = model.graph
    entering = [each.name for each in graph.input if each.type.tensor_type.elem_type == TensorProto.FLOAT]
    leaving = [each.name for each in graph.output if each.type.tensor_type.elem_type == TensorProto.FLOAT]
    inner = {name: f"{name}.half" for name in (*entering, *leaving)}
    for node in graph.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    for name in reversed(entering):
        graph.node.insert(0, helper.make_node("Cast", [name], [inner[name]], to=onnx_type))
    for name in leaving:
        graph.node.append(helper.make_node("Cast", [inner[name]], [name], to=TensorProto.FLOAT))


def _rounded(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    most = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
    return np.asarray(np.clip(values, -most, most).astype(dtype))
