"""Rewrites of graph patterns that the optimizer of a runtime would compute differently.

A valid graph is not always safe: ONNX Runtime 1.32 and OpenVINO 2026.4 replace some patterns with ones that
are only approximately equal. Each function here avoids one of these patterns. ``docs/runtimes.md`` lists what
was observed with which version, and ``tests/deploy/onnx/test_workarounds.py`` shows both the fault and its
absence. A ``Max`` with the lowest float, which is the identity, separates nodes that must not be matched:
``Identity`` is removed before anything is matched, and a ``Clip`` that clips nothing is removed in front of
``QuantizeLinear``.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qexp.deploy.onnx.values import constant, initializer, replace_value

LOWEST = "lowest_float"
"""Name of the constant that every inserted ``Max`` reads."""

MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather")
"""Operators that only move values, past which OpenVINO takes a ``DequantizeLinear``."""


def keep_exact(graph: ir.Graph) -> None:
    """Avoid patterns that a runtime would rewrite, in place, in an optimized graph with stored weights."""
    for node in list(graph):
        if node.op_type in ("MatMul", "Gemm"):
            _expand_weight(graph, node)
        if node.op_type == "Gemm":
            _keep_gemm(graph, node)
        if _is_rewritten_softmax(node) or _is_clipped_integer(node) or _requantizes(node):
            separate(graph, node)


def _expand_weight(graph: ir.Graph, product: ir.Node) -> None:
    """Dequantize the stored weight of a product by ``Cast``, ``Sub`` and ``Mul`` where its input is float.

    If the input does not have 8 bits, ONNX Runtime fuses the product into MatMulNBits, which by default
    quantizes the input to 8 bits again. The arithmetic is constant-folded when the session is created,
    which beats MatMulNBits in floating point at every shape (``docs/runtimes.md``).
    """
    dequantize = producer(product, 1, "DequantizeLinear")
    stored = constant(dequantize.inputs[0]) if dequantize is not None else None
    if dequantize is None or stored is None or stored.dtype.bitwidth > 8 or is_narrow(product):
        return
    if "block_size" in dequantize.attributes:  # written by qexp.deploy.onnx.blocks
        return
    scale, zero_point = (constant(value) for value in dequantize.inputs[1:])
    assert scale is not None
    assert zero_point is not None
    name, numbers = dequantize.outputs[0].name, scale.numpy()
    trailing = len(stored.shape) - 1 - dequantize.attributes.get_int("axis", 1)
    shaped = numbers.reshape(-1, *[1] * trailing) if numbers.ndim else numbers
    zeros = zero_point.numpy().astype(np.float32).reshape(shaped.shape)
    steps = [ir.node("Cast", [dequantize.inputs[0]], {"to": ir.DataType.FLOAT})]
    if zeros.any():
        steps.append(ir.node("Sub", [steps[-1].outputs[0], _constant_named(graph, f"{name}.zeros", zeros)]))
    steps.append(ir.node("Mul", [steps[-1].outputs[0], _constant_named(graph, f"{name}.scales", shaped)]))
    for step in steps:
        step.name = f"{product.name}.{step.op_type}"
    graph.insert_before(product, steps)
    product.replace_input_with(1, steps[-1].outputs[0])


def _constant_named(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    """Return the constant of a name, and add it if it does not exist yet."""
    return graph.initializers[name] if name in graph.initializers else initializer(graph, name, values)


def is_narrow(product: ir.Node) -> bool:
    """Return whether the input of a product has a grid of at most 8 bits, so that integers are multiplied."""
    dequantize = producer(product, 0, "DequantizeLinear")
    if dequantize is None:
        return False
    if producer(dequantize, 0, "DynamicQuantizeLinear") is not None:
        return True
    zero_point = constant(dequantize.inputs[2])
    return zero_point is not None and zero_point.dtype.bitwidth <= 8


def _keep_gemm(graph: ir.Graph, gemm: ir.Node) -> None:
    """Prevent ONNX Runtime from quantizing the float weight or the float bias of a Gemm by itself.

    Between a quantized input and a quantized output it stores a float weight as int8, with one scale for the
    matrix, and a float bias as int32 in steps of the product of both scales, where the bias of a channel with
    tiny weights saturates. So a Gemm with a float weight is separated from the input's Q/DQ pair, and a bias
    is added in a node of its own.
    """
    if producer(gemm, 0, "DequantizeLinear") is None:
        return
    if producer(gemm, 1, "DequantizeLinear") is None:
        separate(graph, gemm)
    elif len(gemm.inputs) == 3:
        bias, product = gemm.inputs[2], gemm.outputs[0]
        gemm.resize_inputs(2)
        add = ir.node("Add", [product, bias])
        add.name = str(gemm.name).replace("Gemm", "Add")
        graph.insert_after(gemm, add)
        replace_value(graph, product, add.outputs[0])


def _is_rewritten_softmax(node: ir.Node) -> bool:
    """Return whether a node is a Softmax of a dequantized value, which ONNX Runtime fuses to QLinearSoftmax.

    QLinearSoftmax multiplies by ``floor(1 / scale)`` of its output, so that 1/255 acts as 1/254, 0.4 as 0.5,
    and any scale above 1 gives zeros.
    """
    return node.op_type == "Softmax" and producer(node, 0, "DequantizeLinear") is not None


def _is_clipped_integer(node: ir.Node) -> bool:
    """Return whether a node clips a dequantized value, to a grid of less than 8 bits.

    OpenVINO 2026.4 clips the integers instead, at bounds that it truncates to whole numbers, so that values
    beyond a bound end a step short of it; also with a split into heads in between.
    """
    before: ir.Node | None = node if node.op_type == "Clip" else None
    while before is not None and (before is node or before.op_type in MOVES):
        value = before.inputs[0]
        before = value.producer() if value is not None else None
    return before is not None and before.op_type == "DequantizeLinear"


def _requantizes(node: ir.Node) -> bool:
    """Return whether a node quantizes a value that was dequantized from another grid.

    ONNX Runtime merges two consecutive Q/DQ pairs into one, with the narrower of their limits and a scale
    that is neither of theirs. It does not with a Reshape or Transpose between them.
    """
    before = producer(node, 0, "DequantizeLinear") if node.op_type == "QuantizeLinear" else None
    if before is None:
        return False
    return any(
        left is None or right is None or not np.array_equal(left.numpy(), right.numpy())
        for left, right in zip(*(map(constant, each.inputs[1:]) for each in (before, node)), strict=True)
    )


def separate(graph: ir.Graph, node: ir.Node) -> None:
    """Insert an identity between a node and its first input."""
    lowest = _constant_named(graph, LOWEST, np.array(np.finfo(np.float32).min))
    identity = ir.node("Max", [node.inputs[0], lowest])
    identity.name = f"{node.name}.Max"
    graph.insert_before(node, identity)
    node.replace_input_with(0, identity.outputs[0])


def producer(node: ir.Node, at: int, operator: str) -> ir.Node | None:
    """Return the producer of an input if it is a certain operator, else None."""
    value = node.inputs[at]
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == operator else None
