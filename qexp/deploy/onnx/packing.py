"""Storage of weights of at most 4 bits in half a byte, and of 2 bits in a quarter, in front of one ``Cast``.

    int4 -> Cast to int8 -> DequantizeLinear or Gather
    int4 -> DequantizeLinear in blocks (:mod:`qexp.deploy.onnx.blocks`)

Runtimes fold the ``Cast`` when they create a session, and then see the same int8 weights as without packing:
the same integer products and look-ups, bit for bit. ``DequantizeLinear`` also takes INT4, but ONNX Runtime
1.32 and OpenVINO 2026.4 then multiply in floating point.

INT2 needs opset 25, which OpenVINO 2026.4 does not read; its engine unpacks the weights first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    import onnx_ir as ir

SMALLEST = 256
"""Fewest integers that are packed: half of them would save less than the ``Cast`` takes."""


@dataclass(frozen=True)
class PackedType:
    """Type of packed integers, and what a file needs to hold it."""

    signed: int
    unsigned: int
    bits: int
    opset: int
    ir_version: int

    def stores(self, integers: np.ndarray) -> bool:
        """Return whether all integers fit, those of int8 as signed and those of uint8 as unsigned."""
        low = -(1 << (self.bits - 1)) if integers.dtype == np.int8 else 0
        return bool(integers.min() >= low and integers.max() < low + (1 << self.bits))


PACKED_TYPES = (
    PackedType(TensorProto.INT2, TensorProto.UINT2, bits=2, opset=25, ir_version=12),
    PackedType(TensorProto.INT4, TensorProto.UINT4, bits=4, opset=21, ir_version=10),
)
"""Types of packed integers, the smallest first."""
PACKED = {kind for each in PACKED_TYPES for kind in (each.signed, each.unsigned)}
"""Numbers of these types in a file."""


def pack_weights(model: ir.Model) -> None:
    """Store stored integers of at most 4 bits in half a byte, of 2 bits in a quarter, in place.

    The file gets the lowest opset and IR version that hold them. The graph must be optimized
    (:func:`qexp.deploy.onnx.passes.optimize_graph`); names of values that nodes read stay.
    """
    import onnx_ir as ir  # takes sympy along, which those who only read files do without

    for value in list(model.graph.initializers.values()):
        stored = value.const_value
        if stored is None or len(stored.shape) < 2 or stored.size < SMALLEST:
            continue
        if stored.dtype not in (ir.DataType.INT8, ir.DataType.UINT8) or _is_zero_point(value):
            continue
        kind = packed_type(stored.numpy())
        if kind is not None:
            _pack(model, value, kind)


def packed_type(integers: np.ndarray) -> PackedType | None:
    """Return the smallest type that stores integers of int8 or uint8, None for whole bytes."""
    return next((each for each in PACKED_TYPES if each.stores(integers)), None)


def _is_zero_point(value: ir.Value) -> bool:
    return any(use.idx == 2 and use.node.op_type == "DequantizeLinear" for use in value.uses())


def _pack(model: ir.Model, value: ir.Value, kind: PackedType) -> None:
    import onnx_ir as ir

    from qexp.deploy.onnx.values import initializer

    stored, name = value.const_value, value.name
    assert stored is not None
    assert name is not None
    dtype = ir.DataType(kind.signed if stored.dtype == ir.DataType.INT8 else kind.unsigned)
    packed = initializer(model.graph, f"{name}.{dtype.name.lower()}", stored.numpy().astype(dtype.numpy()))
    for dequantize in [use.node for use in value.uses() if "block_size" in use.node.attributes]:
        _read_packed(model.graph, dequantize, packed)
    uses = list(value.uses())
    del model.graph.initializers[name]
    if uses:
        cast = ir.node("Cast", [packed], {"to": stored.dtype}, name=f"{name}.Cast")
        for use in uses:
            use.node.replace_input_with(use.idx, cast.outputs[0])
        cast.outputs[0].name = name
        cast.outputs[0].type, cast.outputs[0].shape = value.type, value.shape
        model.graph.insert_before(model.graph[0], cast)
    model.opset_imports[""] = max(model.opset_imports[""], kind.opset)
    model.ir_version = max(model.ir_version, kind.ir_version)


def _read_packed(graph: ir.Graph, dequantize: ir.Node, packed: ir.Value) -> None:
    """Give ``DequantizeLinear`` in blocks packed integers, no ``Cast``, and zero points of their type."""
    from qexp.deploy.onnx.values import initializer, numbers

    dequantize.replace_input_with(0, packed)
    if len(dequantize.inputs) == 3:
        assert packed.dtype is not None
        points = numbers(dequantize.inputs[2]).astype(packed.dtype.numpy())
        own = initializer(graph, f"{packed.name}.{dequantize.name}.zero_point", points)
        dequantize.replace_input_with(2, own)


def unpack_weights(model: ModelProto) -> bool:
    """Store packed weights in whole bytes, in place, and return whether there were any.

    But for its opset and IR version, the graph is then as without packing.
    """
    packed = {each.name: each for each in model.graph.initializer if each.data_type in PACKED}
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in packed]
    for cast in casts:
        _unpack(model, cast, packed[cast.input[0]])
    read = {name for node in model.graph.node for name in node.input}
    for name in packed.keys() - read:
        model.graph.initializer.remove(packed[name])
    return bool(casts)


def _unpack(model: ModelProto, cast: NodeProto, tensor: TensorProto) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(helper.get_node_attr_value(cast, "to"))
    integers = numpy_helper.to_array(tensor).astype(dtype)
    model.graph.initializer.append(numpy_helper.from_array(integers, cast.output[0]))
    model.graph.node.remove(cast)
