"""Whether products of 8-bit integers can saturate where pairs are added in 16 bits: x86 without VNNI.

``vpmaddubsw`` multiplies unsigned activations by signed weights and adds neighbours of the contracted axis,
0 with 1, 2 with 3 and so on, in 16 bits. Activations are at most 255, so that the weights of a pair decide:

    255 * (sum of the positive ones) <= 32767    and    255 * (sum of the negative ones) >= -32768

Both hold if neither sum is beyond 128, as with any weights within 7 bits; of weights of 8 bits it depends on
the values. Unsigned by unsigned, as ONNX Runtime multiplies queries by keys, is computed without such pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

SAFE_PAIR = 128
"""Largest sum of a pair's weights of one sign: 255 * 128 < 2**15."""
SIGNED = frozenset({TensorProto.INT8, TensorProto.INT4, TensorProto.INT2})
"""Types of signed integers that are multiplied as 8-bit ones."""
_RIGHT = {
    "MatMul": 1, "Gemm": 1, "MatMulInteger": 1, "QLinearMatMul": 3,
    "Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3,
}  # fmt: skip
"""Place of the right operand by kind of product."""
_SAME_ORDER = frozenset({"DequantizeLinear", "Cast", "Clip", "Max", "Min", "Identity"})
"""Operators that leave values at their places, or limit them."""
_OTHER_ORDER = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Expand", "Concat", "Split", "Slice", "Gather"})
"""Operators that leave values and move them."""


def largest_pairs(weight: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return for each output channel the largest sum of a pair's weights of one sign, as a magnitude.

    Args:
        weight: Stored integers of a product, or the weights before they are rounded, a matrix.
        axis: The contracted axis; a last row without a neighbour is a pair of its own.

    Returns:
        Magnitudes [channels].
    """
    rows = np.moveaxis(weight, axis, -1)
    rows = rows.astype(np.result_type(rows, np.int16))  # a sum of two bytes may not fit one
    if rows.shape[-1] % 2:
        rows = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, 1)])
    pairs = rows.reshape(*rows.shape[:-1], -1, 2)
    sums = np.maximum(pairs.clip(min=0).sum(-1), -pairs.clip(max=0).sum(-1))
    largest: NDArray[Any] = sums.reshape(-1, sums.shape[-1]).max(1, initial=0)
    return largest


def cannot_saturate(model: ModelProto) -> bool:
    """Return whether no product of a graph can saturate, whatever its inputs.

    Each signed 8-bit right operand has to be stored, in a matrix whose pairs fit. A right operand that the
    graph computes on a signed grid, or that leaves its order unknown, counts as one that may saturate; and so
    does one in a file of its own.
    """
    origins = _Origins(model)
    return all(origins.is_safe(node) for node in model.graph.node)


def weight_fits(weight: NDArray[np.integer], axis: int | None) -> bool:
    """Return whether stored integers cannot saturate as right operand of a product.

    Args:
        weight: The integers.
        axis: The contracted axis of a matrix, None where it is unknown.
    """
    half = SAFE_PAIR // 2
    if not weight.size or (int(weight.min()) >= -half and int(weight.max()) <= half):
        return True
    return axis is not None and weight.ndim == 2 and bool((largest_pairs(weight, axis) <= SAFE_PAIR).all())


def contracted_axis(product: NodeProto) -> int | None:
    """Return the contracted axis of the right operand of a product of matrices, None for another product."""
    if "Conv" in product.op_type:
        return None
    return int(any(each.name == "transB" and each.i for each in product.attribute))


class _Origins:
    """Where the right operands of a graph come from."""

    def __init__(self, model: ModelProto) -> None:
        self.stored = {each.name: each for each in model.graph.initializer}
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.types = {each.name: each.type.tensor_type.elem_type for each in model.graph.input}

    def is_safe(self, node: NodeProto) -> bool:
        place = _RIGHT.get(node.op_type)
        if place is None:
            return node.domain in ("", "ai.onnx")  # products of a runtime's own are not looked into
        return self._fits(node.input[place], contracted_axis(node))

    def _fits(self, name: str, axis: int | None) -> bool:
        """Follow an operand back to the integers that it consists of, if it is one of integers."""
        if (tensor := self.stored.get(name)) is not None:
            if tensor.data_type not in SIGNED:
                return True
            beside = tensor.data_location == TensorProto.EXTERNAL  # its values were not loaded
            return not beside and weight_fits(numpy_helper.to_array(tensor), axis)
        maker = self.makers.get(name)
        if maker is None:
            return self.types.get(name) not in SIGNED
        if maker.op_type == "QuantizeLinear":
            return self._is_unsigned(maker)
        if maker.op_type in _SAME_ORDER:
            return self._fits(maker.input[0], axis)
        if maker.op_type == "Transpose":
            turned = None if axis is None or not _swaps(maker) else 1 - axis
            return self._fits(maker.input[0], turned)
        if maker.op_type in _OTHER_ORDER:
            sources = maker.input if maker.op_type == "Concat" else maker.input[:1]
            return all(self._fits(each, None) for each in sources)
        return True  # computed in floating point, or unsigned by DynamicQuantizeLinear

    def _is_unsigned(self, quantizer: NodeProto) -> bool:
        point = self.stored.get(quantizer.input[2]) if len(quantizer.input) == 3 else None
        return len(quantizer.input) < 3 or (point is not None and point.data_type not in SIGNED)


def _swaps(transpose: NodeProto) -> bool:
    """Return whether a Transpose exchanges the two axes of a matrix."""
    order = next((list(each.ints) for each in transpose.attribute if each.name == "perm"), [1, 0])
    return order == [1, 0]
