"""Q/DQ nodes as floating-point arithmetic, where a runtime's own kernels would be wrong, and the reverse."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

INTEGERS = frozenset({TensorProto.INT4, TensorProto.INT8, TensorProto.UINT4, TensorProto.UINT8})
"""Types of stored weights that may be dequantized in arithmetic."""


def decompose_qdq(model: ModelProto, chosen: Callable[[NodeProto], bool]) -> bool:
    """Replace the ``QuantizeLinear`` nodes that ``chosen`` selects, and their dequantizers, in place.

    The new nodes compute ``q = clamp(round_half_even(x / scale) + zero_point, lowest, highest)`` and
    ``(q - zero_point) * scale`` bit for bit, and no runtime takes them for integer operators. Per-channel
    scales are taken to lie along the last axis, the only one along which the exporter places activation
    scales.

    Returns:
        Whether the graph changed.
    """
    stored = {each.name: each for each in model.graph.initializer}
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and chosen(node)]
    integers = {node.output[0] for node in quantizers}
    replacements = {node.output[0]: _decompose_quantize(model.graph, node, stored) for node in quantizers}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in integers:
            replacements[node.output[0]] = _decompose_dequantize(model.graph, node, stored)
    replace(model.graph, replacements)
    return bool(quantizers)


def dequantize_weights(model: ModelProto) -> bool:
    """Restore ``DequantizeLinear`` for stored weights that are dequantized in arithmetic, in place.

    Reverses :mod:`qexp.deploy.onnx.workarounds` for runtimes that recognize weights by that operator.

    Returns:
        Whether the graph changed.
    """
    stored, read_by = {each.name: each for each in model.graph.initializer}, readers(model.graph)
    replacements = dict[str, list[NodeProto]]()
    for cast in model.graph.node:
        if cast.op_type == "Cast" and cast.input[0] in stored and stored[cast.input[0]].data_type in INTEGERS:
            steps = _weight_steps(cast, stored, read_by)
            if steps is not None:
                subtract, multiply = steps
                node = _weight_pair(model.graph, cast, subtract=subtract, multiply=multiply, stored=stored)
                replacements |= {each.output[0]: [] for each in (cast, subtract) if each is not None}
                replacements[multiply.output[0]] = [node]
    replace(model.graph, replacements)
    return bool(replacements)


def _weight_steps(
    cast: NodeProto, stored: Mapping[str, TensorProto], read_by: Mapping[str, list[NodeProto]]
) -> tuple[NodeProto | None, NodeProto] | None:
    """Return the optional ``Sub`` of zero points and the ``Mul`` by scales after a weight's ``Cast``."""
    chain, value = list[NodeProto](), cast.output[0]
    for _ in range(2):
        if len(read_by[value]) != 1 or (chain and chain[-1].op_type == "Mul"):
            break
        chain.append(read_by[value][0])
        value = chain[-1].output[0]
    all_stored = all(each.input[1] in stored for each in chain if each.op_type in ("Sub", "Mul"))
    if not all_stored or [each.op_type for each in chain] not in (["Mul"], ["Sub", "Mul"]):
        return None
    return (chain[0] if len(chain) == 2 else None), chain[-1]


def _weight_pair(
    graph: GraphProto,
    cast: NodeProto,
    subtract: NodeProto | None,
    multiply: NodeProto,
    stored: dict[str, TensorProto],
) -> NodeProto:
    weight, name = stored[cast.input[0]], multiply.output[0]
    scales = numpy_helper.to_array(stored[multiply.input[1]])
    zeros = numpy_helper.to_array(stored[subtract.input[1]]) if subtract else np.zeros_like(scales)
    flat = [-1] if scales.ndim else []
    kind = helper.tensor_dtype_to_np_dtype(weight.data_type)
    for part, values in (("scale", scales), ("zero_point", zeros.astype(kind))):
        graph.initializer.append(numpy_helper.from_array(values.reshape(flat), f"{name}.{part}"))
    names = [weight.name, f"{name}.scale", f"{name}.zero_point"]
    node = helper.make_node("DequantizeLinear", names, [name], name=multiply.name)
    if scales.ndim:  # scales have the shape [n, 1, ...] from their own axis on
        node.attribute.append(helper.make_attribute("axis", len(weight.dims) - scales.ndim))
    return node


def readers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Return the nodes that read each value, by the name of the value."""
    nodes: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            nodes[name].append(node)
    return nodes


def _decompose_quantize(
    graph: GraphProto, node: NodeProto, stored: dict[str, TensorProto]
) -> list[NodeProto]:
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


def _decompose_dequantize(
    graph: GraphProto, node: NodeProto, stored: dict[str, TensorProto]
) -> list[NodeProto]:
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
    """Replace nodes, identified by their first output, in place."""
    nodes = [other for node in graph.node for other in replaced.get(node.output[0], [node])]
    fresh = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(fresh)
