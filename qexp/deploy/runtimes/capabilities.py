"""Checks of what a runtime takes, and how it executes bit-widths, by :data:`qexp.config.RUNTIMES`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from qexp import naming
from qexp.config import Execution
from qexp.deploy.runtimes import spec_of
from qexp.errors import DeployError

SIGNED = {TensorProto.INT8, TensorProto.INT4}
"""Types of signed grids."""
FLOATS = {TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2}
"""Types of grids of 8-bit floats."""
WIDE = {TensorProto.INT16, TensorProto.UINT16}
"""Types of grids with 16 bits."""


def execution(runtime: str, widths: Iterable[tuple[int, int]]) -> Execution:
    """Return how a runtime executes products; for mixed bit-widths, the least real execution of any part.

    Args:
        runtime: A name in :data:`qexp.config.RUNTIMES`.
        widths: Bits of weights and of activations for each part of the model.

    Raises:
        DeployError: The runtime is unknown.
    """
    spec_of(runtime)
    return naming.execution(runtime, widths)  # type: ignore[arg-type]


def check_graph(runtime: str, model: ModelProto, name: str) -> None:
    """Check that a runtime takes the form of a graph, for a clearer error than its own.

    Args:
        runtime: A name in :data:`qexp.config.RUNTIMES`.
        model: Graph to check.
        name: Name of the graph in messages.

    Raises:
        DeployError: The runtime is unknown, or the graph has ranges found at run time, zero points,
            unsigned integers, 16 bits, 8-bit floats or blocks that it does not take; the message names the
            first such node and what to change.
    """
    spec = spec_of(runtime)
    dynamic = [node.name for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"]
    if dynamic and not spec.zero_points:
        raise DeployError(
            f"{name}: {runtime} has no DynamicQuantizeLinear, and {len(dynamic)} activations of this graph "
            f"have a range of the tensor that is found at run time, the first at {dynamic[0]}; quantize with "
            "scheme=dynamic_token or scheme=symmetric, or use onnxruntime or openvino"
        )
    blocks = list(_in_blocks(model))
    if blocks and not spec.blocks:
        raise DeployError(
            f"{name}: {runtime} takes no weights in blocks beside float inputs, and {len(blocks)} "
            f"of this graph's are, the first at {blocks[0]}; use scheme.weight.group_size=null, "
            "quant.activation_bits=8, or onnxruntime or openvino"
        )
    points = list(_zero_points(model))
    floats = [node for node, kind, _ in points if kind in FLOATS]
    if floats and not spec.floats:
        raise DeployError(
            f"{name}: {runtime} is not known to give the numbers of 8-bit floats, and {len(floats)} of this "
            f"graph's grids have them, the first at {floats[0]}; use quant=w8a8, or onnxruntime"
        )
    wide = [node for node, kind, _ in points if kind in WIDE]
    if wide and not spec.wide:
        raise DeployError(
            f"{name}: {runtime} has no grids of 16 bits, and {len(wide)} of this graph's have them, the "
            f"first at {wide[0]}; use at most 8 bits (quant=w8a8), or onnxruntime or openvino"
        )
    bad = [node for node, kind, moved in points if kind not in SIGNED or moved]
    if bad and not spec.zero_points:
        raise DeployError(
            f"{name}: {runtime} takes signed integers with zero point 0 only, and {len(bad)} of this graph's "
            f"grids are unsigned or have a zero point, the first at {bad[0]}; quantize with scheme=symmetric "
            "(and a placement that is not typed), or use onnxruntime or openvino"
        )


def _in_blocks(model: ModelProto) -> Iterator[str]:
    """Yield the name of each stored weight in blocks."""
    for node in model.graph.node:
        if any(each.name == "block_size" for each in node.attribute):
            yield node.input[0]


def _zero_points(model: ModelProto) -> Iterator[tuple[str, int, bool]]:
    """Yield name, type and whether a zero point is not 0, for each Q/DQ node and each table of integers."""
    stored = {each.name: each for each in model.graph.initializer}
    kinds = {name: each.data_type for name, each in stored.items()}
    for node in model.graph.node:
        name = node.name or node.output[0]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            point = node.input[2] if len(node.input) == 3 else ""
            if point in stored:
                yield name, kinds[point], _is_moved(stored[point])
                kinds[node.output[0]] = kinds[point]
            elif node.op_type == "QuantizeLinear":
                kinds[node.output[0]] = _named_type(node)
                yield name, kinds[node.output[0]], False
            elif node.input[0] in kinds:
                yield name, kinds[node.input[0]], False
        elif node.op_type == "Gather" and node.input[0] in stored:
            table = stored[node.input[0]]
            if node.input[0].endswith("zero_point") or table.data_type in (
                TensorProto.UINT8,
                TensorProto.UINT16,
            ):
                yield name, table.data_type, _is_moved(table)


def _is_moved(points: TensorProto) -> bool:
    return bool(np.any(numpy_helper.to_array(points).astype(np.int32)))


def _named_type(node: NodeProto) -> int:
    """Return the output type without a zero point: the node's attribute, or ONNX's default, uint8."""
    named = next((each.i for each in node.attribute if each.name == "output_dtype"), 0)
    return named or TensorProto.UINT8
