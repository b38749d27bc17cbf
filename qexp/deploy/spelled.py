"""Quantization of activations in floating-point arithmetic, where a runtime's own would be wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper


def spell_out(model: ModelProto, chosen: Callable[[NodeProto], bool]) -> bool:
    """Replace the ``QuantizeLinear`` nodes that ``chosen`` picks, and what reads them, in place.

    ``q = clamp(round_half_even(x / scale) + zero_point, lowest, highest)`` and ``(q - zero_point) * scale``
    with the same bits, in nodes that no runtime takes for integers. A scale for each index stands for the
    last axis, the only one that the exporter gives scales of activations along.

    Returns:
        Whether anything changed.
    """
    stored = {each.name: each for each in model.graph.initializer}
    picked = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and chosen(node)]
    integers = {node.output[0] for node in picked}
    replaced = {node.output[0]: _quantized(model.graph, node, stored) for node in picked}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in integers:
            replaced[node.output[0]] = _dequantized(model.graph, node, stored)
    replace(model.graph, replaced)
    return bool(picked)


def readers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Nodes by the name of a value that they read."""
    found: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def _quantized(graph: GraphProto, node: NodeProto, stored: dict[str, TensorProto]) -> list[NodeProto]:
    x, scale, point = node.input
    limits = np.iinfo(numpy_helper.to_array(stored[point]).dtype)
    bounds = [_number(graph, f"spelled.{limit}", limit, stored) for limit in (limits.min, limits.max)]
    name = node.output[0]
    steps = [f"{name}.{step}" for step in ("divided", "rounded", "moved")]
    return [
        helper.make_node("Div", [x, scale], steps[:1]),
        helper.make_node("Round", steps[:1], steps[1:2]),
        helper.make_node("Add", [steps[1], _as_float(graph, point, stored)], steps[2:]),
        helper.make_node("Clip", [steps[2], *bounds], [name]),
    ]


def _dequantized(graph: GraphProto, node: NodeProto, stored: dict[str, TensorProto]) -> list[NodeProto]:
    q, scale, point = node.input
    moved = f"{node.output[0]}.moved"
    return [
        helper.make_node("Sub", [q, _as_float(graph, point, stored)], [moved]),
        helper.make_node("Mul", [moved, scale], list(node.output)),
    ]


def _as_float(graph: GraphProto, name: str, stored: dict[str, TensorProto]) -> str:
    twin = f"{name}.float"
    if twin not in stored:
        values = numpy_helper.to_array(stored[name]).astype(np.float32)
        stored[twin] = numpy_helper.from_array(values, twin)
        graph.initializer.append(stored[twin])
    return twin


def _number(graph: GraphProto, name: str, value: int, stored: dict[str, TensorProto]) -> str:
    if name not in stored:
        stored[name] = numpy_helper.from_array(np.array(value, np.float32), name)
        graph.initializer.append(stored[name])
    return name


def replace(graph: GraphProto, replaced: Mapping[str, Sequence[NodeProto]]) -> None:
    """Put other nodes in the place of those that are called by their first output, in place."""
    nodes = [other for node in graph.node for other in replaced.get(node.output[0], [node])]
    fresh = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(fresh)
