"""Forms of a graph whose numbers the optimizer of a runtime leaves alone.

A valid graph is not yet a safe one: ONNX Runtime 1.32 and OpenVINO 2026.4 rewrite some patterns into
something close by.
Each function here avoids one of these patterns; what was seen, and with which version, is in
``docs/runtimes.md``, and ``tests/deploy/onnx/test_workarounds.py`` shows both the fault and its absence. A
``Max`` with the lowest float, which is the identity, parts what must not be matched: ``Identity`` is removed
before anything is matched, and a ``Clip`` that clips nothing is removed in front of ``QuantizeLinear``.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qexp.deploy.onnx.passes import constant, initializer

LOWEST = "lowest_float"
"""Name of the constant that every inserted ``Max`` reads."""


def keep_exact(graph: ir.Graph) -> None:
    """Avoid what a runtime would rewrite, in place; the graph is tidy and its weights are stored."""
    for node in list(graph):
        if node.op_type in ("MatMul", "Gemm"):
            _spell_weight(graph, node)
        if node.op_type == "Gemm":
            _keep_gemm(graph, node)
        if _is_rewritten_softmax(node) or _is_clipped_integer(node) or _requantizes(node):
            _part(graph, node)


def _spell_weight(graph: ir.Graph, product: ir.Node) -> None:
    """Dequantize the stored weight of a product by ``Cast``, ``Sub`` and ``Mul`` where its input is float.

    Beside an input that is not of 8 bits, ONNX Runtime makes MatMulNBits of a product, which by default
    quantizes the input to 8 bits again; and the arithmetic is folded when the session is made, which
    beats MatMulNBits in floating point at every shape (``docs/runtimes.md``).
    """
    dequantize = _made_by(product, 1, "DequantizeLinear")
    stored = constant(dequantize.inputs[0]) if dequantize is not None else None
    if dequantize is None or stored is None or stored.dtype.bitwidth > 8 or _is_narrow(product):
        return
    scale, zero_point = (constant(value) for value in dequantize.inputs[1:])
    assert scale is not None
    assert zero_point is not None
    name, numbers = dequantize.outputs[0].name, scale.numpy()
    behind = len(stored.shape) - 1 - dequantize.attributes.get_int("axis", 1)
    shaped = numbers.reshape(-1, *[1] * behind) if numbers.ndim else numbers
    zeros = zero_point.numpy().astype(np.float32).reshape(shaped.shape)
    steps = [ir.node("Cast", [dequantize.inputs[0]], {"to": ir.DataType.FLOAT})]
    if zeros.any():
        steps.append(ir.node("Sub", [steps[-1].outputs[0], _own(graph, f"{name}.zeros", zeros)]))
    steps.append(ir.node("Mul", [steps[-1].outputs[0], _own(graph, f"{name}.scales", shaped)]))
    for step in steps:
        step.name = f"{product.name}.{step.op_type}"
    graph.insert_before(product, steps)
    product.replace_input_with(1, steps[-1].outputs[0])


def _own(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    """A constant, made where it is not there yet."""
    return graph.initializers[name] if name in graph.initializers else initializer(graph, name, values)


def _is_narrow(product: ir.Node) -> bool:
    """Whether its input comes from a grid of at most 8 bits, so that the product is one of integers."""
    dequantize = _made_by(product, 0, "DequantizeLinear")
    if dequantize is None:
        return False
    zero_point = constant(dequantize.inputs[2])
    return zero_point is not None and zero_point.dtype.bitwidth <= 8


def _keep_gemm(graph: ir.Graph, gemm: ir.Node) -> None:
    """Keep ONNX Runtime from quantizing the float weight or the float bias of a Gemm on its own account.

    Between a quantized input and a quantized output it stores a float weight as int8, with one scale for the
    matrix, and a float bias as int32 in steps of the product of both scales, where that of a channel with
    tiny weights saturates. So a float weight is parted from the input's pair, and a bias is added behind.
    """
    if _made_by(gemm, 0, "DequantizeLinear") is None:
        return
    if _made_by(gemm, 1, "DequantizeLinear") is None:
        _part(graph, gemm)
    elif len(gemm.inputs) == 3:
        bias, product = gemm.inputs[2], gemm.outputs[0]
        gemm.resize_inputs(2)
        add = ir.node("Add", [product, bias])
        add.name = str(gemm.name).replace("Gemm", "Add")
        for use in list(product.uses()):
            if use.node is not add:
                use.node.replace_input_with(use.idx, add.outputs[0])
        graph.insert_after(gemm, add)
        _take_output(graph, product, add.outputs[0])


def _take_output(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let a new value be the graph's output in the place of an old one, under its name."""
    for index, value in enumerate(graph.outputs):
        if value is old:
            graph.outputs[index] = new
            new.shape, new.type = old.shape, old.type
            new.name, old.name = old.name, f"{old.name}.product"


def _is_rewritten_softmax(node: ir.Node) -> bool:
    """Whether it reads what was dequantized, which ONNX Runtime takes for a QLinearSoftmax.

    That operator multiplies by ``floor(1 / scale)`` of its output, so that 1/255 acts as 1/254, 0.4 as 0.5,
    and all above 1 gives zeros.
    """
    return node.op_type == "Softmax" and _made_by(node, 0, "DequantizeLinear") is not None


def _is_clipped_integer(node: ir.Node) -> bool:
    """Whether it clips what was dequantized, to a grid of less than 8 bits.

    OpenVINO 2026.4 clips the integers in its place, at bounds that it cuts off to whole numbers, so that what
    lies beyond a bound ends a step short of it.
    """
    return node.op_type == "Clip" and _made_by(node, 0, "DequantizeLinear") is not None


def _requantizes(node: ir.Node) -> bool:
    """Whether it quantizes what was dequantized from another grid.

    ONNX Runtime makes one pair of two in a row, with the narrower of their limits and a scale that is
    neither's. With a Reshape or Transpose between them it does not.
    """
    before = _made_by(node, 0, "DequantizeLinear") if node.op_type == "QuantizeLinear" else None
    if before is None:
        return False
    return any(
        left is None or right is None or not np.array_equal(left.numpy(), right.numpy())
        for left, right in zip(*(map(constant, each.inputs[1:]) for each in (before, node)), strict=True)
    )


def _part(graph: ir.Graph, node: ir.Node) -> None:
    """Put the identity between a node and what feeds it."""
    lowest = _own(graph, LOWEST, np.array(np.finfo(np.float32).min))
    apart = ir.node("Max", [node.inputs[0], lowest])
    apart.name = f"{node.name}.Max"
    graph.insert_before(node, apart)
    node.replace_input_with(0, apart.outputs[0])


def _made_by(node: ir.Node, at: int, operator: str) -> ir.Node | None:
    """What makes an input, if it is of an operator."""
    value = node.inputs[at]
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == operator else None
