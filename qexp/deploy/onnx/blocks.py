"""Weights with a range for each block of inputs, in forms that runtimes compute exactly.

The exporter writes ``DequantizeLinear`` with ``block_size``. What remains of it depends on the product:

- An input on a grid of at most 8 bits: the product becomes one for each block, of a part of the input by a
  weight with a range for each channel, and their ``Sum``. So every runtime multiplies integers. ONNX Runtime
  1.32 fuses the operator in blocks into MatMulIntegerToFloat, and that fails when it runs.
- A float input, and weights of 3 or 4 bits: the operator stays. ONNX Runtime makes it MatMulNBits, and
  OpenVINO a layer with compressed weights: memory holds 4 bits, and floats are multiplied.
- Any other weight: arithmetic that is folded when a session is created.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from qexp.deploy.onnx.packing import packed_type
from qexp.deploy.onnx.values import initializer, numbers, replace_value
from qexp.deploy.onnx.workarounds import is_narrow, producer, separate

HALF_BYTE = 4
"""Bits of the weights that runtimes keep in blocks."""


def block_size(dequantize: ir.Node) -> int:
    """Return the size of the blocks of a ``DequantizeLinear``, 0 for none."""
    return dequantize.attributes.get_int("block_size", 0)


def transpose_parameter(graph: ir.Graph, dequantize: ir.Node, at: int, order: list[int]) -> None:
    """Transpose the scales or zero points of a weight in blocks, which have as many axes as the weight."""
    value = dequantize.inputs[at]
    assert value is not None
    name = f"{dequantize.outputs[0].name}.{value.name}.transposed"
    own = initializer(graph, name, numbers(value).transpose(order).copy())
    dequantize.replace_input_with(at, own)


def look_up_in_blocks(graph: ir.Graph, dequantize: ir.Node, places: ir.Value) -> list[ir.Node]:
    """Return the nodes that look up rows of a table in blocks, and dequantize only those; the result is last.

    ``DequantizeLinear`` gives the same bits, but OpenVINO 2026.4 takes no scales that are computed.
    """
    table, scale, zero_point = dequantize.inputs
    assert places.shape is not None
    name, width, kept = dequantize.outputs[0].name, numbers(table).shape[1], [0] * len(places.shape)
    shapes = {"blocks": [*kept, -1, block_size(dequantize)], "ranges": [*kept, -1, 1], "rows": [*kept, width]}
    to = {part: initializer(graph, f"{name}.{part}", np.array(shape)) for part, shape in shapes.items()}
    nodes: list[ir.Node] = []

    def then(operator: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        nodes.append(ir.node(operator, inputs, attributes))
        return nodes[-1].outputs[0]

    def looked_up(values: ir.Value | None, shape: str) -> ir.Value:
        rows = then("Gather", values, places, axis=0)
        return then("Reshape", then("Cast", rows, to=ir.DataType.FLOAT), to[shape])

    steps = looked_up(table, "blocks")
    if numbers(zero_point).any():
        steps = then("Sub", steps, looked_up(zero_point, "ranges"))
    then("Reshape", then("Mul", steps, looked_up(scale, "ranges")), to["rows"])
    return nodes


def write_products(graph: ir.Graph) -> None:
    """Write the products of weights in blocks so that runtimes compute them exactly, in place.

    The graph must be optimized (:func:`qexp.deploy.onnx.passes.optimize_graph`).
    """
    splits, expanded = _Splits(graph), dict[ir.Node, ir.Value]()
    for product in list(graph):
        dequantize = (
            producer(product, 1, "DequantizeLinear") if product.op_type in ("MatMul", "Gemm") else None
        )
        if dequantize is None or not block_size(dequantize):
            continue
        if is_narrow(product):
            splits.split(product, dequantize)
        elif _is_kept(product, dequantize):
            _keep(graph, product, dequantize)
        else:
            if dequantize not in expanded:
                expanded[dequantize] = _expand(graph, product, dequantize)
            product.replace_input_with(1, expanded[dequantize])
    graph.sort()


def _is_kept(product: ir.Node, dequantize: ir.Node) -> bool:
    kind = packed_type(numbers(dequantize.inputs[0]))
    return product.op_type == "MatMul" and kind is not None and kind.bits == HALF_BYTE


def _keep(graph: ir.Graph, product: ir.Node, dequantize: ir.Node) -> None:
    """Keep the operator, behind an input that ONNX Runtime does not take for one of integers."""
    if len(dequantize.inputs) == 3 and not numbers(dequantize.inputs[2]).any():
        dequantize.resize_inputs(2)
    if producer(product, 0, "DequantizeLinear") is not None:
        separate(graph, product)


def _expand(graph: ir.Graph, product: ir.Node, dequantize: ir.Node) -> ir.Value:
    """Return the weight, dequantized by ``Cast``, ``Sub`` and ``Mul`` in front of a product."""
    stored, scale, zero_point = map(numbers, dequantize.inputs)
    name, axis = dequantize.outputs[0].name, dequantize.attributes["axis"].as_int()
    shape = list(stored.shape)
    in_blocks = [*shape[:axis], -1, block_size(dequantize), *shape[axis + 1 :]]

    def stored_as(part: str, values: np.ndarray) -> ir.Value:
        return initializer(graph, f"{name}.{part}", values)

    steps = [ir.node("Cast", [dequantize.inputs[0]], {"to": ir.DataType.FLOAT})]
    steps.append(ir.node("Reshape", [steps[-1].outputs[0], stored_as("blocks", np.array(in_blocks))]))
    for operator, values in (("Sub", zero_point.astype(np.float32)), ("Mul", scale)):
        if operator == "Mul" or values.any():
            ranges = stored_as(operator, np.expand_dims(values, axis + 1))
            steps.append(ir.node(operator, [steps[-1].outputs[0], ranges]))
    steps.append(ir.node("Reshape", [steps[-1].outputs[0], stored_as("whole", np.array(shape))]))
    for number, step in enumerate(steps):
        step.name = f"{product.name}.{step.op_type}_{number}"
    graph.insert_before(product, steps)
    return steps[-1].outputs[0]


class _Splits:
    """Products of blocks, which share the parts of an input and of a weight that several of them read."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._inputs: dict[tuple[ir.Node, int], list[ir.Value]] = {}
        self._weights: dict[tuple[ir.Value | None, ...], list[ir.Value]] = {}

    def split(self, product: ir.Node, dequantize: ir.Node) -> None:
        """Replace a product by the sum of those of its blocks, and its bias."""
        weights = self._weight_parts(product, dequantize)
        pairs = zip(self._input_parts(product, len(weights)), weights, strict=True)
        nodes = [
            ir.node(product.op_type, pair, product.attributes, name=f"{product.name}.block_{number}")
            for number, pair in enumerate(pairs)
        ]
        if len(nodes) > 1:
            parts = [node.outputs[0] for node in nodes]
            nodes.append(ir.node("Sum", parts, name=f"{product.name}.Sum"))
        if len(product.inputs) == 3:
            sums = [nodes[-1].outputs[0], product.inputs[2]]
            nodes.append(ir.node("Add", sums, name=f"{product.name}.Add"))
        self._graph.insert_after(product, nodes)
        replace_value(self._graph, product.outputs[0], nodes[-1].outputs[0])

    def _input_parts(self, product: ir.Node, count: int) -> list[ir.Value]:
        """Return an input in parts, each quantized as the whole: the form that every runtime recognizes."""
        dequantize = producer(product, 0, "DequantizeLinear")
        assert dequantize is not None
        if count == 1:
            return [dequantize.outputs[0]]
        if (dequantize, count) not in self._inputs:
            quantize = producer(dequantize, 0, "QuantizeLinear")
            # A range that is found at run time is that of the whole, so integers are split.
            whole = dequantize.inputs[:1] if quantize is None else quantize.inputs[:1]
            split = ir.node("Split", whole, {"axis": -1, "num_outputs": count}, num_outputs=count)
            split.name = f"{dequantize.name}.Split_{count}"
            nodes, parts = [split], []
            for number, value in enumerate(split.outputs):
                for each in (quantize, dequantize) if quantize else (dequantize,):
                    name = f"{each.name}.block_{number}_of_{count}"
                    inputs = [value, *each.inputs[1:]]
                    nodes.append(ir.node(each.op_type, inputs, each.attributes, name=name))
                    value = nodes[-1].outputs[0]
                parts.append(value)
            self._graph.insert_after(dequantize, nodes)
            self._inputs[dequantize, count] = parts
        return self._inputs[dequantize, count]

    def _weight_parts(self, product: ir.Node, dequantize: ir.Node) -> list[ir.Value]:
        """Return the blocks of a weight, each with one range for each channel."""
        key = tuple(dequantize.inputs)
        if key not in self._weights:
            axis = dequantize.attributes["axis"].as_int()
            stored, scale, zero_point = map(numbers, dequantize.inputs)
            count, name = scale.shape[axis], f"{dequantize.inputs[0].name}"  # type: ignore[union-attr]
            parts = []
            for number, integers in enumerate(np.split(stored, count, axis)):
                values = (integers, scale.take(number, axis), zero_point.take(number, axis))
                inputs = [
                    initializer(self._graph, f"{name}.block_{number}{ending}", np.ascontiguousarray(array))
                    for ending, array in zip(("", ".scale", ".zero_point"), values, strict=True)
                ]
                node_name = f"{dequantize.name}.block_{number}"
                parts.append(ir.node("DequantizeLinear", inputs, {"axis": 1 - axis}, name=node_name))
            self._graph.insert_before(product, parts)
            self._weights[key] = [node.outputs[0] for node in parts]
        return self._weights[key]
