"""What form of graph each runtime takes, and which bit-widths it computes with: one table.

Sources: ONNX Runtime 1.31 and OpenVINO 2026.4 as measured on tiny encoders (``tests/deploy/engines``);
TensorRT for RTX 1.7, whose parser refuses zero points in words of its own; TensorRT takes the same form.
Unsigned integers are refused for both even with zero point 0: their INT8 is signed. torch_int8 moves zero
points itself, and computes what has more than 8 bits in floating point. TensorRT wants INT4 in blocks, which
no grid here has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from qexp.config.base import FLOAT_BITS
from qexp.errors import DeployError

Execution = Literal["float", "integer", "stored", "simulated"]
"""Nothing is quantized; products of integers of these widths; weights stored in these widths and multiplied
in floating point; the numbers of the grid without any gain, in a wider format."""
ORDER: tuple[Execution, ...] = ("float", "integer", "stored", "simulated")
"""From the real to the pretended."""


@dataclass(frozen=True)
class Flavour:
    """What one runtime takes."""

    zero_points: bool
    """Whether zero points other than 0 and unsigned integers are taken."""
    wide: bool
    """Whether grids of 16 bits are taken."""
    half_bytes: bool
    """Whether weights stored as INT4 are taken; where not, the loader stores them in whole bytes."""
    products: Mapping[tuple[int, int], Execution]
    """How weights and activations of so many bits are computed; what is not listed is ``simulated``."""


CPU: dict[tuple[int, int], Execution] = {(8, 8): "integer", (8, FLOAT_BITS): "stored"}
GPU: dict[tuple[int, int], Execution] = {(8, 8): "integer"}
FLAVOURS: dict[str, Flavour] = {
    "onnxruntime": Flavour(
        zero_points=True, wide=True, half_bytes=True, products=CPU | {(4, FLOAT_BITS): "stored"}
    ),
    "openvino": Flavour(
        zero_points=True, wide=True, half_bytes=True, products=CPU | {(4, FLOAT_BITS): "stored"}
    ),
    "tensorrt": Flavour(
        zero_points=False, wide=False, half_bytes=False, products=GPU | {(4, FLOAT_BITS): "stored"}
    ),
    "tensorrt_rtx": Flavour(
        zero_points=False, wide=False, half_bytes=False, products=GPU | {(4, FLOAT_BITS): "stored"}
    ),
    "torch_int8": Flavour(zero_points=True, wide=True, half_bytes=False, products=GPU),
}
"""By the names of :data:`qexp.deploy.runtimes.RUNTIMES`."""
SIGNED = {TensorProto.INT8, TensorProto.INT4}
"""Types of grids without zero points."""
WIDE = {TensorProto.INT16, TensorProto.UINT16}
"""Types that hold 16 bits."""


def execution(runtime: str, widths: Iterable[tuple[int, int]]) -> Execution:
    """What becomes of products in a runtime; of mixed bits, the worst part.

    Args:
        runtime: A name in :data:`FLAVOURS`.
        widths: Bits of weights and of activations, of each part of the model.

    Raises:
        DeployError: the runtime is not known.
    """
    flavour = _flavour(runtime)
    found = [flavour.products.get(pair, "simulated") for pair in widths if pair != (FLOAT_BITS,) * 2]
    return max(found, key=ORDER.index, default="float")


def check_graph(runtime: str, model: ModelProto, name: str) -> None:
    """See that a runtime takes the form of a graph, before it says so in its own words.

    Args:
        runtime: A name in :data:`FLAVOURS`.
        model: The graph.
        name: What to call the graph.

    Raises:
        DeployError: the runtime is not known, or the graph has zero points, unsigned integers or 16 bits
            that it does not take; says which, and what to change.
    """
    flavour = _flavour(runtime)
    points = list(_zero_points(model))
    wide = [node for node, kind, _ in points if kind in WIDE]
    if wide and not flavour.wide:
        raise DeployError(
            f"{name}: {runtime} has no grids of 16 bits, and {len(wide)} of this graph's have them, the "
            f"first at {wide[0]}; use at most 8 bits (quant=w8a8), or onnxruntime or openvino"
        )
    off = [node for node, kind, moved in points if kind not in SIGNED or moved]
    if off and not flavour.zero_points:
        raise DeployError(
            f"{name}: {runtime} takes signed integers with zero point 0 only, and {len(off)} of this graph's "
            f"grids are unsigned or have a zero point, the first at {off[0]}; quantize with scheme=symmetric "
            "(and a placement that is not typed), or use onnxruntime or openvino"
        )


def _flavour(runtime: str) -> Flavour:
    if runtime not in FLAVOURS:
        raise DeployError(f"runtime {runtime!r} is unknown; allowed are {', '.join(FLAVOURS)}")
    return FLAVOURS[runtime]


def _zero_points(model: ModelProto) -> Iterator[tuple[str, int, bool]]:
    """Nodes that quantize or dequantize, and tables of integers: name, type, whether zero is moved."""
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
    """Type that ``QuantizeLinear`` gives without a zero point: of its attribute, else uint8, says ONNX."""
    named = next((each.i for each in node.attribute if each.name == "output_dtype"), 0)
    return named or TensorProto.UINT8
