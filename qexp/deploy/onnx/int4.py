"""Weights of 4 bits and less in half a byte.

What is multiplied becomes INT4, which ``DequantizeLinear`` takes from opset 21 on. What is looked up cannot:
``Gather`` knows no INT4. Such a table keeps two columns in each byte, the first half of them in the low
four bits, the second half in the high ones, and the few bytes that were looked up are taken apart. A table
that is both is left in whole bytes: twice half a byte is no gain. No number changes by a bit.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import ModelProto, TensorProto, numpy_helper

from qexp.config import Quant
from qexp.deploy.onnx.passes import constant, initializer

INT4_BITS, WIDE_BITS = 4, 16
LOWEST, HIGHEST = -8, 7
"""What four bits hold."""


def worth_half_bytes(quant: Quant) -> bool:
    """Whether a model is to be exported with ``narrow``: 4-bit weights beside float or 16-bit activations.

    Beside quantized activations ONNX Runtime 1.31 and OpenVINO 2026.4 compute the right numbers from INT4,
    too, but take it apart into floating point, where they would have multiplied integers from whole bytes.
    """
    overrides = quant.overrides.values()
    weights = (quant.weight_bits, quant.embedding_bits, *(each.weight_bits for each in overrides))
    activations = (quant.activation_bits, *(each.activation_bits for each in overrides))
    return min(bits for bits in weights if bits is not None) <= INT4_BITS and all(
        bits is None or bits >= WIDE_BITS for bits in activations
    )


def narrow_weights(model: ir.Model) -> None:
    """Store integers of 4 bits and less in half a byte, in place; the graph is tidy, of opset 21 or above."""
    for value in list(model.graph.initializers.values()):
        readers = [use.node for use in value.uses()]
        if not readers or not _fits(value):
            continue
        if all(_dequantizes(node, value) for node in readers):
            _narrow_product(model.graph, value, readers)
        elif all(_looks_up(node) for node in readers) and _is_even(value):
            _pack_table(model.graph, value, readers)


def widen_weights(model: ModelProto) -> None:
    """Store INT4 in whole bytes again, in place, for runtimes that take no other; tables stay packed."""
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
    """Whether it is a table that splits into two halves."""
    sizes = list(value.shape or ())
    return len(sizes) == 2 and int(sizes[1]) % 2 == 0  # type: ignore[arg-type]


def _dequantizes(node: ir.Node, value: ir.Value) -> bool:
    if node.op_type != "DequantizeLinear" or node.inputs[0] is not value:
        return False
    zero_point = constant(node.inputs[2])
    assert zero_point is not None  # the graph is tidy
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
    """Take the bytes [..., width / 2] apart into [..., width], 0 to 15.

    Without ``BitShift``: OpenVINO 2026.4 rounds where it should cut off.
    """
    found = lookup.outputs[0]
    uses = list(found.uses())
    low_mask, high_mask, sixteenth = (
        initializer(graph, f"{found.name}.{name}", value)
        for name, value in (
            ("low", np.array(0x0F, np.uint8)), ("high", np.array(0xF0, np.uint8)),
            ("sixteenth", np.array(1 / 16, np.float32)),
        )
    )  # fmt: skip
    low = ir.node("BitwiseAnd", [found, low_mask])
    masked = ir.node("BitwiseAnd", [found, high_mask])
    floats = ir.node("Cast", [masked.outputs[0]], {"to": ir.DataType.FLOAT})
    shifted = ir.node("Mul", [floats.outputs[0], sixteenth])
    high = ir.node("Cast", [shifted.outputs[0]], {"to": ir.DataType.UINT8})
    both = ir.node("Concat", [low.outputs[0], high.outputs[0]], {"axis": -1})
    graph.insert_after(lookup, [low, masked, floats, shifted, high, both])
    for use in uses:
        use.node.replace_input_with(use.idx, both.outputs[0])


def _raise_zero_point(graph: ir.Graph, reader: ir.Node) -> None:
    """Let what reads the integers subtract 8 more: by its own zero point, or by those of its rows."""
    if reader.op_type == "DequantizeLinear":
        zero_point, at = reader.inputs[2], (reader, 2)
    else:  # a Cast, whose result meets the zero points of the rows: they are looked up, cast, unsqueezed
        (subtract,) = (use.node for use in reader.outputs[0].uses())
        unsqueezed = subtract.inputs[1]
        rows = unsqueezed.producer().inputs[0].producer().inputs[0].producer()  # type: ignore[union-attr]
        assert rows is not None
        zero_point, at = rows.inputs[0], (rows, 0)
    stored = constant(zero_point)
    assert zero_point is not None
    assert stored is not None
    raised = (stored.numpy().astype(np.int16) - LOWEST).astype(np.uint8)
    at[0].replace_input_with(at[1], initializer(graph, f"{zero_point.name}.raised", raised))
