"""From the engine inspector of TensorRT: the layer that executes each product, and the work of each.

Of an engine that was built with ``ProfilingVerbosity.DETAILED`` the inspector tells for each layer the nodes
of the file that it came of (``Metadata``, ``[ONNX Layer: NAME]`` for each), its kernel and the types of what
it reads: in ``Format/Datatype`` up to version 10, as ``Row major Int8 format`` in 8.6 and ``Int8`` in 10, and
in a field of its own from version 11 on (NVIDIA, Engine Inspector; Migrating IEngineInspector Usage from
TensorRT 10.x to 11.x). An engine with dynamic axes knows no sizes, so those of the products are inferred from
the graph with the sizes of the batch.

This was written after that description and has met no inspector yet: no test had a GPU.
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

from qexp.deploy.engine import Audit, Batch, Product
from qexp.errors import DeployError

PRODUCTS = {"MatMul", "Gemm"}
"""Operators of the file that multiply matrices."""
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "Cast", "Transpose"}
"""Operators of the file that only quantize, dequantize, or change a type or a layout."""
REFORMAT = {"Reformat", "Quantize", "Dequantize", "NoOp"}
"""Layers of TensorRT that do the same and come of no node."""
NOT_FOUND = "not found"
"""Kernel of a product that no layer names; it counts as floating point."""
TENSOR_TYPE = re.compile("data_?type", re.IGNORECASE)
"""In the name of a field that holds a tensor's type."""
INTEGER = re.compile(r"\bu?int[48]\b", re.IGNORECASE)
"""In the name of an integer type."""
INTEGER_KERNEL = re.compile(r"(?:i8i8|s8s8|imma|int8_?gemm)", re.IGNORECASE)
"""In the name of a kernel whose both operands are integers."""

Sizes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class _Layer:
    """One layer of an engine."""

    kind: str
    kernel: str
    nodes: tuple[str, ...]
    integer: bool
    """Whether it multiplies integers: its kernel says so, or else its first operand is one. A layer that
    reads integers as weights alone multiplies what it dequantized."""


def audit(layers: Sequence[Mapping[str, Any] | str], model: ModelProto, batch: Batch) -> Audit | None:
    """What TensorRT does with a batch; None if the engine tells the names of its layers alone.

    Args:
        layers: ``Layers`` of the inspector's JSON.
        model: the graph that the engine was built from.
        batch: the graph's inputs, the first of them [rows, tokens].
    """
    told = [_layer(each) for each in layers if not isinstance(each, str)]
    if not told:
        return None
    by_node = {name: layer for layer in reversed(told) for name in layer.nodes}
    products = tuple(_product(node, macs, by_node.get(node.name)) for node, macs in work(model, batch))
    kinds = {node.name: node.op_type for node in model.graph.node}
    conversions = sum(
        layer.kind in REFORMAT
        or (bool(layer.nodes) and {kinds.get(name, "") for name in layer.nodes} <= CONVERSIONS)
        for layer in told
    )
    rows, tokens = np.shape(next(iter(batch.values())))[:2]
    counts = Counter(layer.kind for layer in told)
    return Audit((rows, tokens), products, conversions, dict(counts.most_common()))


def work(model: ModelProto, batch: Batch) -> list[tuple[NodeProto, int]]:
    """Every product of a graph with its multiply-accumulates for a batch.

    Raises:
        DeployError: the sizes of a product do not follow from the graph and the batch.
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
    """The graph for batches of that shape alone."""
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
    """Those that are known in full."""
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


def _layer(told: Mapping[str, Any]) -> _Layer:
    name, kernel = str(told.get("Name", "")), str(told.get("TacticName", ""))
    nodes = re.findall(r"\[ONNX Layer: ([^\]]+)\]", str(told.get("Metadata", "")))
    first: Mapping[str, Any] = next(iter(told.get("Inputs", ())), {})
    reads_integers = any(
        INTEGER.search(str(value)) for field, value in first.items() if TENSOR_TYPE.search(field)
    )
    return _Layer(
        str(told.get("LayerType", "")),
        kernel or name,
        tuple(nodes or name.split(" + ")),
        reads_integers or bool(INTEGER_KERNEL.search(kernel)),
    )


def _product(node: NodeProto, macs: int, layer: _Layer | None) -> Product:
    if layer is None:
        return Product(node.name, NOT_FOUND, macs, False)
    return Product(node.name, f"{layer.kind} {layer.kernel}", macs, layer.integer)
