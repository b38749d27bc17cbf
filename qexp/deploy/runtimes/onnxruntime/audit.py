"""From a profile of ONNX Runtime: every product that it executed, with the shapes that it saw.

A profile names each executed node with its operator and the types and shapes of what went in and out, the
nodes that fusion made included. Weights that were packed beforehand have no shape in it, which is why the
work is counted from the result and the first operand. Attributes are those of the optimized graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx

from qexp.deploy.engine import Audit, Product

INTEGER_LEVEL = 4
"""``accuracy_level`` at which MatMulNBits quantizes activations and multiplies integers; below, floats."""
CONVERSIONS = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "Transpose", "ReorderInput",
    "ReorderOutput",
}  # fmt: skip
"""Operators that only quantize, dequantize, or change a type or a layout."""
KERNEL = "_kernel_time"
"""How the profile ends the name of an executed node."""

Shape = Sequence[int]


@dataclass(frozen=True)
class _Node:
    """One executed node; no shape where the profile has none."""

    name: str
    operator: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    attributes: Mapping[str, Any]


def audit(optimized: onnx.ModelProto, events: Sequence[Mapping[str, Any]], shape: tuple[int, int]) -> Audit:
    """What ONNX Runtime did in one run.

    Args:
        optimized: the graph that the session ran.
        events: the profile of exactly one run.
        shape: rows and tokens of the batch.
    """
    attributes = {
        node.name: {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        for node in optimized.graph.node
    }
    nodes = [_node(event, attributes) for event in events if _is_kernel(event)]
    products = tuple(
        product for node in nodes if node.operator in PRODUCTS for product in PRODUCTS[node.operator](node)
    )
    counts = Counter(node.operator for node in nodes)
    conversions = sum(count for operator, count in counts.items() if operator in CONVERSIONS)
    return Audit(shape, products, conversions, dict(counts.most_common()))


def _is_kernel(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and str(event["name"]).endswith(KERNEL)


def _node(event: Mapping[str, Any], attributes: Mapping[str, Mapping[str, Any]]) -> _Node:
    name, values = str(event["name"]).removesuffix(KERNEL), event["args"]
    return _Node(
        name, values["op_name"], _shapes(values["input_type_shape"]), _shapes(values["output_type_shape"]),
        attributes.get(name, {}),
    )  # fmt: skip


def _shapes(typed: Sequence[Mapping[str, Shape]]) -> tuple[Shape, ...]:
    """``[{"float": [2, 3]}]`` -> ``([2, 3],)``."""
    return tuple(shape for each in typed for shape in each.values())


def _matmul(integer: bool) -> Callable[[_Node], list[Product]]:
    def count(node: _Node) -> list[Product]:
        summed = node.inputs[0][-2 if node.attributes.get("transA") else -1]
        return [Product(node.name, node.operator, prod(node.outputs[0]) * summed, integer)]

    return count


def _narrow(node: _Node) -> list[Product]:
    return _matmul(node.attributes.get("accuracy_level", 0) >= INTEGER_LEVEL)(node)


def _attention(integer: bool) -> Callable[[_Node], list[Product]]:
    """Attention with the projections to queries, keys and values inside: its one input [B, S, I]."""

    def count(node: _Node) -> list[Product]:
        rows, length, width = node.inputs[0]
        made = node.outputs[0][-1]
        projection = Product(f"{node.name}:qkv", node.operator, rows * length * width * 3 * made, integer)
        return [projection, *_scores(node, rows * length * length * made)]

    return count


def _heads(node: _Node) -> list[Product]:
    """Attention on queries [B, S, H] and keys, [B, T, H] or [B, N, T, D]."""
    rows, length, width = node.outputs[0]
    return _scores(node, rows * length * node.inputs[1][-2] * width)


def _scores(node: _Node, macs: int) -> list[Product]:
    """Queries by keys, and probabilities by values: the kernels of both know floating point only."""
    return [Product(f"{node.name}:{part}", node.operator, macs, False) for part in ("scores", "context")]


PRODUCTS: dict[str, Callable[[_Node], list[Product]]] = {
    **dict.fromkeys(
        ("MatMulInteger", "MatMulInteger16", "QLinearMatMul", "MatMulIntegerToFloat", "QGemm",
         "DynamicQuantizeMatMul"), _matmul(integer=True),
    ),
    **dict.fromkeys(
        ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "FusedMatMulActivation", "MatMulBnb4"),
        _matmul(integer=False),
    ),
    "MatMulNBits": _narrow,
    "Attention": _attention(integer=False),
    "QAttention": _attention(integer=True),
    "MultiHeadAttention": _heads,
}  # fmt: skip
"""Operators that multiply matrices: the products in each."""
