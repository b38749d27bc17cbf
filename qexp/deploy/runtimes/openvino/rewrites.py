"""Rewrites of a Q/DQ graph that OpenVINO would refuse or compute wrongly otherwise (OpenVINO 2026.4, x86)."""

from __future__ import annotations

from functools import cache

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from qexp.deploy.onnx.decompose_qdq import decompose_qdq, readers
from qexp.deploy.onnx.saturation import contracted_axis, weight_fits

WIDE = frozenset({TensorProto.INT16, TensorProto.UINT16})


def rewrite(model: ModelProto, *, saturating: bool) -> bool:
    """Rewrite, in place, what OpenVINO does not support.

    Args:
        model: Exported graph.
        saturating: Whether pairs of products saturate on this CPU; what may do so is kept in floating point.

    Returns:
        Whether anything changed.
    """
    stored = {each.name: each for each in model.graph.initializer}

    def unsupported(node: NodeProto) -> bool:
        scale, point = (stored.get(name) for name in node.input[1:])
        return (point is not None and point.data_type in WIDE) or (scale is not None and len(scale.dims) > 0)

    changed = decompose_qdq(model, unsupported)
    if saturating:
        safe = safe_quantizers(model)
        changed |= decompose_qdq(model, lambda node: node.output[0] not in safe)
    return (has_mixed_tables(model.graph) and move_before_heads(model.graph)) or changed


def safe_quantizers(model: ModelProto) -> set[str]:
    """Return the outputs of quantizers that only feed products with stored weights that cannot saturate."""
    stored = {each.name: each for each in model.graph.initializer}
    weights = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
    }
    read_by = readers(model.graph)

    @cache
    def fits(name: str, axis: int | None) -> bool:
        return weight_fits(numpy_helper.to_array(stored[name]), axis)

    def safe(node: NodeProto) -> bool:
        pairs = read_by[node.output[0]]
        products = [each for pair in pairs for each in read_by[pair.output[0]]]
        return all(
            each.op_type in ("MatMul", "Gemm")
            and each.input[1] in weights
            and fits(weights[each.input[1]], contracted_axis(each))
            for each in products
        )

    return {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear" and safe(node)}


def has_mixed_tables(graph: GraphProto) -> bool:
    """Return whether rows of a floating-point table meet rows of an integer table with one scale.

    OpenVINO refuses such a graph ("convert->constant_fold failed") if a tensor is also quantized behind a
    product, a ``Reshape`` and a ``Transpose``, as queries and keys are.
    """
    tables = {each.name: each for each in graph.initializer if len(each.dims) == 2}
    kinds = {
        tables[node.input[0]].data_type
        for node in graph.node
        if node.op_type == "Gather" and node.input[0] in tables
    }
    return TensorProto.FLOAT in kinds and len(kinds) > 1


def move_before_heads(graph: GraphProto) -> bool:
    """Quantize per-tensor before values are split into heads instead of afterwards, in place.

    ``Reshape``, ``Transpose``, ``QuantizeLinear``, ``DequantizeLinear`` become ``QuantizeLinear``,
    ``DequantizeLinear``, ``Reshape``, ``Transpose``, which give the same numbers; so with the ``Clip`` of a
    grid below 8 bits.

    Returns:
        Whether the graph changed.
    """
    producers = {name: node for node in graph.node for name in node.output}
    read_by = readers(graph)
    order = list(graph.node)
    for transpose in [node for node in graph.node if node.op_type == "Transpose"]:
        reshape = producers.get(transpose.input[0])
        pair = _only_readers(transpose, read_by)
        if reshape is None or reshape.op_type != "Reshape" or len(read_by[reshape.output[0]]) > 1 or not pair:
            continue
        first, last = pair[0], pair[-1]
        result = last.output[0]
        first.input[0], last.output[0] = reshape.input[0], f"{result}.before_heads"
        reshape.input[0], transpose.output[0] = last.output[0], result
        order = [node for node in order if all(node is not each for each in pair)]
        place = next(index for index, node in enumerate(order) if node is reshape)
        order[place:place] = pair
    changed = order != list(graph.node)
    fresh = [NodeProto.FromString(node.SerializeToString()) for node in order]
    del graph.node[:]
    graph.node.extend(fresh)
    return changed


def _only_readers(transpose: NodeProto, read_by: dict[str, list[NodeProto]]) -> list[NodeProto]:
    """Return the Q/DQ pair behind a ``Transpose``, with its ``Clip``; none if a value has other readers."""
    chain = [transpose]
    for kind in ("Clip", "QuantizeLinear", "DequantizeLinear"):
        following = read_by[chain[-1].output[0]]
        if len(following) == 1 and following[0].op_type == kind:
            chain.append(following[0])
        elif kind != "Clip":
            return []
    return chain[1:]
