"""Storage of weights of at most 4 bits in half a byte.

Weights of products become INT4, which ``DequantizeLinear`` takes from opset 21 on. Tables cannot, since
``Gather`` does not take INT4. A table is packed with two columns in each byte instead, the first half of the
columns in the low four bits and the second half in the high ones, and the few bytes that are looked up are
unpacked. A table that is also multiplied stays in whole bytes: twice half a byte is no gain. Results do not
change by a bit.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, TensorProto, numpy_helper

from qexp.config import Quant
from qexp.deploy.onnx.passes import constant, initializer

INT4_BITS, WIDE_BITS = 4, 16
LOWEST, HIGHEST = -8, 7
"""Limits of a signed 4-bit integer."""


def should_pack_int4(quant: Quant) -> bool:
    """Return whether to export with ``narrow``: for 4-bit weights with float or 16-bit activations.

    With activations of fewer bits ONNX Runtime 1.31 and OpenVINO 2026.4 compute the right numbers from INT4,
    too, but unpack it to floating point, where they would have multiplied integers from whole bytes.
    """
    overrides = quant.overrides.values()
    weights = (quant.weight_bits, quant.embedding_bits, *(each.weight_bits for each in overrides))
    activations = (quant.activation_bits, *(each.activation_bits for each in overrides))
    return min(bits for bits in weights if bits is not None) <= INT4_BITS and all(
        bits is None or bits >= WIDE_BITS for bits in activations
    )


def pack_int4(model: ir.Model) -> None:
    """Store integers of at most 4 bits in half a byte, in place.

    The graph must be optimized (:func:`qexp.deploy.onnx.passes.optimize_graph`), and of opset 21 or above.
    """
    for value in list(model.graph.initializers.values()):
        readers = [use.node for use in value.uses()]
        if not readers or not _fits(value):
            continue
        if all(_dequantizes(node, value) for node in readers):
            _narrow_product(model.graph, value, readers)
        elif all(_looks_up(node) for node in readers) and _is_even(value):
            _pack_table(model.graph, value, readers)


def widen_weights(model: ModelProto) -> None:
    """Store INT4 in whole bytes again, in place, for runtimes that do not take it; tables stay packed."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT4:
            values = numpy_helper.to_array(tensor).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _fits(value: ir.Value) -> bool:
    stored = constant(value)
    if stored is None or stored.dtype != ir.DataType.INT8 or len(stored.shape) < 2:
        return False
    integers = stored.numpy()
    return bool(integers.size and integers.min() >= LOWEST and integers.max() <= HIGHEST)


def _looks_up(node: ir.Node) -> bool:
    return node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0


def _is_even(value: ir.Value) -> bool:
    """Return whether a value is a table with an even number of columns."""
    sizes = list(value.shape or ())
    return len(sizes) == 2 and int(sizes[1]) % 2 == 0  # type: ignore[arg-type]


def _dequantizes(node: ir.Node, value: ir.Value) -> bool:
    if node.op_type != "DequantizeLinear" or node.inputs[0] is not value:
        return False
    zero_point = constant(node.inputs[2])
    assert zero_point is not None  # the graph is optimized
    integers = zero_point.numpy()
    return bool((integers >= LOWEST).all() and (integers <= HIGHEST).all())


def _narrow_product(graph: ir.Graph, value: ir.Value, readers: list[ir.Node]) -> None:
    narrow = _int4(graph, value)
    for node in readers:
        zero_point = node.inputs[2]
        assert zero_point is not None
        node.replace_input_with(2, _int4(graph, zero_point))
        node.replace_input_with(0, narrow)


def _int4(graph: ir.Graph, value: ir.Value) -> ir.Value:
    stored = constant(value)
    assert stored is not None
    return initializer(graph, f"{value.name}.int4", stored.numpy().astype(ir.DataType.INT4.numpy()))


def _pack_table(graph: ir.Graph, value: ir.Value, readers: list[ir.Node]) -> None:
    stored = constant(value)
    assert stored is not None
    nibbles = (stored.numpy().astype(np.int16) - LOWEST).astype(np.uint8)
    low, high = np.split(nibbles, 2, axis=1)
    packed = initializer(graph, f"{value.name}.packed", low | high << 4)
    for node in readers:
        for use in list(node.outputs[0].uses()):
            _raise_zero_point(graph, use.node)
        node.replace_input_with(0, packed)
        _unpack(graph, node)


def _unpack(graph: ir.Graph, lookup: ir.Node) -> None:
    """Unpack the looked-up bytes [..., width / 2] into [..., width], 0 to 15.

    ``BitShift`` is avoided: OpenVINO 2026.4 rounds where it should truncate.
    """
    packed = lookup.outputs[0]
    uses = list(packed.uses())
    low_mask, high_mask, sixteenth = (
        initializer(graph, f"{packed.name}.{name}", value)
        for name, value in (
            ("low", np.array(0x0F, np.uint8)),
            ("high", np.array(0xF0, np.uint8)),
            ("sixteenth", np.array(1 / 16, np.float32)),
        )
    )
    low = ir.node("BitwiseAnd", [packed, low_mask])
    masked = ir.node("BitwiseAnd", [packed, high_mask])
    floats = ir.node("Cast", [masked.outputs[0]], {"to": ir.DataType.FLOAT})
    shifted = ir.node("Mul", [floats.outputs[0], sixteenth])
    high = ir.node("Cast", [shifted.outputs[0]], {"to": ir.DataType.UINT8})
    both = ir.node("Concat", [low.outputs[0], high.outputs[0]], {"axis": -1})
    graph.insert_after(lookup, [low, masked, floats, shifted, high, both])
    for use in uses:
        use.node.replace_input_with(use.idx, both.outputs[0])


def _raise_zero_point(graph: ir.Graph, reader: ir.Node) -> None:
    """Raise the zero point of a reader of the unpacked integers by 8: its own, or those of its rows."""
    if reader.op_type == "DequantizeLinear":
        zero_point, place = reader.inputs[2], (reader, 2)
    else:  # a Cast, followed by a Sub of the rows' zero points: they are looked up, cast, unsqueezed
        (subtract,) = (use.node for use in reader.outputs[0].uses())
        unsqueezed = subtract.inputs[1]
        rows = unsqueezed.producer().inputs[0].producer().inputs[0].producer()  # type: ignore[union-attr]
        assert rows is not None
        zero_point, place = rows.inputs[0], (rows, 0)
    stored = constant(zero_point)
    assert zero_point is not None
    assert stored is not None
    raised = (stored.numpy().astype(np.int16) - LOWEST).astype(np.uint8)
    place[0].replace_input_with(place[1], initializer(graph, f"{zero_point.name}.raised", raised))
