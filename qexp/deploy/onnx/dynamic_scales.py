"""Products of integers whose scales are found at run time, for symmetric grids.

    MatMul(q * s, w)  ->  MatMul(q, w) * s

Scales of a tensor, or of each token, are constant along the axis that a product sums over. Behind it, they
leave a product of integers in steps of 1, which runtimes take as one with a fixed range. Only products with a
stored weight are changed: the scales of a second activation would have to follow as well.
"""

from __future__ import annotations

import onnx_ir as ir

from qexp.deploy.onnx.values import constant, take_output


def move_scales(graph: ir.Graph) -> None:
    """Move the scales of dynamic activations behind the products that read them, in place.

    The graph must be optimized (:func:`qexp.deploy.onnx.passes.optimize_graph`).
    """
    for scaled in list(graph):
        steps = scaled.inputs[0].producer() if scaled.op_type == "Mul" and scaled.inputs[0] else None
        if steps is None or steps.op_type != "DequantizeLinear" or not _steps_of_one(steps):
            continue
        for use in list(scaled.outputs[0].uses()):
            if use.idx == 0 and _multiplies_stored(use.node):
                _move(graph, scaled, use.node)
        if not scaled.outputs[0].uses() and not scaled.outputs[0].is_graph_output():
            graph.remove(scaled, safe=True)


def _steps_of_one(dequantize: ir.Node) -> bool:
    """Return whether a node dequantizes an activation in steps of 1."""
    scale = constant(dequantize.inputs[1])
    return constant(dequantize.inputs[0]) is None and scale is not None and bool((scale.numpy() == 1).all())


def _multiplies_stored(product: ir.Node) -> bool:
    """Return whether a node multiplies by a stored, quantized weight; a ``Gemm`` without transposed input."""
    weight = product.inputs[1].producer() if len(product.inputs) > 1 and product.inputs[1] else None
    if weight is None or weight.op_type != "DequantizeLinear" or constant(weight.inputs[0]) is None:
        return False
    return product.op_type in ("MatMul", "Gemm") and not product.attributes.get_int("transA", 0)


def _move(graph: ir.Graph, scaled: ir.Node, product: ir.Node) -> None:
    """Let a product read steps, and multiply its result by their scales, before any bias of a ``Gemm``."""
    bias = product.inputs[2] if len(product.inputs) == 3 else None
    if bias is not None:
        product.resize_inputs(2)
    readers, result = list(product.outputs[0].uses()), product.outputs[0]
    product.replace_input_with(0, scaled.inputs[0])
    added = [ir.node("Mul", [result, scaled.inputs[1]], name=f"{product.name}.scales")]
    if bias is not None:
        added.append(ir.node("Add", [added[0].outputs[0], bias], name=f"{product.name}.bias"))
    last = added[-1].outputs[0]
    last.shape, last.type, added[0].outputs[0].type = result.shape, result.type, result.type
    for use in readers:
        use.node.replace_input_with(use.idx, last)
    graph.insert_after(product, added)
    take_output(graph, result, last)
