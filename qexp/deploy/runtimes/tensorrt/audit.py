"""Audit of TensorRT from its engine inspector: the layer that executes each product, and the work of each.

For an engine that was built with ``ProfilingVerbosity.DETAILED`` the inspector reports for each layer the
nodes of the file that it comes from (``Metadata``, ``[ONNX Layer: NAME]`` for each), its kernel and the types
of its inputs: in ``Format/Datatype`` up to version 10, as ``Row major Int8 format`` in 8.6 and ``Int8`` in
10, and in a field of its own from version 11 on (NVIDIA, Engine Inspector; Migrating IEngineInspector Usage
from TensorRT 10.x to 11.x). An engine with dynamic axes has no sizes, so the sizes of products are inferred
from the graph with the sizes of the batch.

This module follows that description and is untested against a real inspector: no test had a GPU.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, shape_inference

from qexp.deploy.engine import Audit, Batch, EngineProduct
from qexp.errors import DeployError

PRODUCTS = {"MatMul", "Gemm"}
"""Operators of the file that multiply matrices."""
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "Cast", "Transpose"}
"""Operators of the file that only quantize, dequantize, or change a type or a layout."""
REFORMAT = {"Reformat", "Quantize", "Dequantize", "NoOp"}
"""Layers of TensorRT that only convert and come from no node."""
NOT_FOUND = "not found"
"""Kernel of a product that no layer names; the product counts as floating point."""
TENSOR_TYPE = re.compile("data_?type", re.IGNORECASE)
"""Pattern in the name of a field that holds a tensor's type."""
INTEGER = re.compile(r"\bu?int[48]\b", re.IGNORECASE)
"""Pattern in the name of an integer type."""
INTEGER_KERNEL = re.compile(r"(?:i8i8|s8s8|imma|int8_?gemm)", re.IGNORECASE)
"""Pattern in the name of a kernel whose operands are both integers."""

Sizes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class _Layer:
    """Layer of an engine."""

    kind: str
    kernel: str
    nodes: tuple[str, ...]
    integer: bool
    """Whether the layer multiplies integers: by the name of its kernel, or by an integer first operand. A
    layer whose only integers are weights dequantizes them first."""


def audit(layers: Sequence[Mapping[str, Any] | str], model: ModelProto, batch: Batch) -> Audit | None:
    """Audit TensorRT on a batch; None if the inspector reports only the names of layers.

    Args:
        layers: ``Layers`` of the inspector's JSON.
        model: Graph that the engine was built from.
        batch: Inputs of the graph, the first of them [rows, tokens].
    """
    detailed = [_layer(each) for each in layers if not isinstance(each, str)]
    if not detailed:
        return None
    by_node = {name: layer for layer in reversed(detailed) for name in layer.nodes}
    products = tuple(_product(node, macs, by_node.get(node.name)) for node, macs in work(model, batch))
    kinds = {node.name: node.op_type for node in model.graph.node}
    conversions = sum(
        layer.kind in REFORMAT
        or (bool(layer.nodes) and {kinds.get(name, "") for name in layer.nodes} <= CONVERSIONS)
        for layer in detailed
    )
    rows, tokens = np.shape(next(iter(batch.values())))[:2]
    counts = Counter(layer.kind for layer in detailed)
    return Audit((rows, tokens), products, conversions, dict(counts.most_common()))


def work(model: ModelProto, batch: Batch) -> list[tuple[NodeProto, int]]:
    """Return every product of a graph with its multiply-accumulates for a batch.

    Raises:
        DeployError: The sizes of a product do not follow from the graph and the batch.
    """
    products = [node for node in model.graph.node if node.op_type in PRODUCTS]
    try:
        fixed = _fixed(model, batch)
        sizes = _sizes(shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True).graph)
        return [(node, _macs(node, sizes)) for node in products]
    except (shape_inference.InferenceError, LookupError) as error:
        raise DeployError(
            f"audit: the work of a batch of {np.shape(next(iter(batch.values())))} cannot be counted: "
            f"{error}; export the model again"
        ) from error


def _fixed(model: ModelProto, batch: Batch) -> ModelProto:
    """Return a copy of the graph with the fixed input shapes of a batch."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, np.shape(batch[value.name])))
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    return fixed


def _sizes(graph: GraphProto) -> Sizes:
    """Return the sizes of all values whose shape is fully known."""
    known = [*graph.value_info, *graph.input, *graph.output]
    shapes = {each.name: each.type.tensor_type.shape.dim for each in known}
    return {
        name: [axis.dim_value for axis in axes]
        for name, axes in shapes.items()
        if all(axis.HasField("dim_value") for axis in axes)
    }


def _macs(node: NodeProto, sizes: Sizes) -> int:
    transposed = any(each.name == "transA" and each.i for each in node.attribute)
    return prod(sizes[node.output[0]]) * sizes[node.input[0]][-2 if transposed else -1]


def _layer(entry: Mapping[str, Any]) -> _Layer:
    name, kernel = str(entry.get("Name", "")), str(entry.get("TacticName", ""))
    nodes = re.findall(r"\[ONNX Layer: ([^\]]+)\]", str(entry.get("Metadata", "")))
    first: Mapping[str, Any] = next(iter(entry.get("Inputs", ())), {})
    reads_integers = any(
        INTEGER.search(str(value)) for field, value in first.items() if TENSOR_TYPE.search(field)
    )
    return _Layer(
        str(entry.get("LayerType", "")),
        kernel or name,
        tuple(nodes or name.split(" + ")),
        reads_integers or bool(INTEGER_KERNEL.search(kernel)),
    )


def _product(node: NodeProto, macs: int, layer: _Layer | None) -> EngineProduct:
    if layer is None:
        return EngineProduct(node.name, NOT_FOUND, macs, False)
    return EngineProduct(node.name, f"{layer.kind} {layer.kernel}", macs, layer.integer)
