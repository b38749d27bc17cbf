"""Audit of ONNX Runtime from a profile: every executed product, with the shapes of its operands.

A profile lists each executed node, including fused ones, with its operator and the types and shapes of its
inputs and outputs. Weights that were packed beforehand have no shape in it, so the work is counted from the
result and the first operand. Attributes come from the optimized graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx

from qexp.deploy.engine import Audit, EngineProduct

INTEGER_LEVEL = 4
"""``accuracy_level`` from which MatMulNBits quantizes activations and multiplies integers, not floats."""
CONVERSIONS = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast", "Transpose", "ReorderInput",
    "ReorderOutput",
}  # fmt: skip
"""Operators that only quantize, dequantize, or change a type or a layout."""
KERNEL = "_kernel_time"
"""Suffix of the name of an executed node in the profile."""

Shape = Sequence[int]


@dataclass(frozen=True)
class _Node:
    """Executed node; a shape is absent where the profile has none."""

    name: str
    operator: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    attributes: Mapping[str, Any]


def audit(optimized: onnx.ModelProto, events: Sequence[Mapping[str, Any]], shape: tuple[int, int]) -> Audit:
    """Audit one run of ONNX Runtime.

    Args:
        optimized: Graph that the session ran.
        events: Profile of exactly one run.
        shape: Rows and tokens of the batch.
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
        name,
        values["op_name"],
        inputs=_shapes(values["input_type_shape"]),
        outputs=_shapes(values["output_type_shape"]),
        attributes=attributes.get(name, {}),
    )


def _shapes(typed: Sequence[Mapping[str, Shape]]) -> tuple[Shape, ...]:
    """``[{"float": [2, 3]}]`` -> ``([2, 3],)``."""
    return tuple(shape for each in typed for shape in each.values())


def _matmul(integer: bool) -> Callable[[_Node], list[EngineProduct]]:
    def count(node: _Node) -> list[EngineProduct]:
        inner = node.inputs[0][-2 if node.attributes.get("transA") else -1]
        return [EngineProduct(node.name, node.operator, prod(node.outputs[0]) * inner, integer)]

    return count


def _narrow(node: _Node) -> list[EngineProduct]:
    return _matmul(node.attributes.get("accuracy_level", 0) >= INTEGER_LEVEL)(node)


def _attention(integer: bool) -> Callable[[_Node], list[EngineProduct]]:
    """Count attention that includes the projections to queries, keys and values, of one input [B, S, I]."""

    def count(node: _Node) -> list[EngineProduct]:
        rows, length, width = node.inputs[0]
        hidden = node.outputs[0][-1]
        projection = EngineProduct(
            f"{node.name}:qkv", node.operator, rows * length * width * 3 * hidden, integer
        )
        return [projection, *_scores(node, rows * length * length * hidden)]

    return count


def _heads(node: _Node) -> list[EngineProduct]:
    """Count attention on queries [B, S, H] and keys, [B, T, H] or [B, N, T, D]."""
    rows, length, width = node.outputs[0]
    return _scores(node, rows * length * node.inputs[1][-2] * width)


def _scores(node: _Node, macs: int) -> list[EngineProduct]:
    """Return queries by keys and probabilities by values, whose kernels support only floating point."""
    return [
        EngineProduct(f"{node.name}:{part}", node.operator, macs, False) for part in ("scores", "context")
    ]


PRODUCTS: dict[str, Callable[[_Node], list[EngineProduct]]] = {
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
"""Counters of the products in each operator that multiplies matrices."""
