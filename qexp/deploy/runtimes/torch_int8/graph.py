"""Index of an ONNX graph: constants, producers and readers of values, integer products, attentions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor


class AttentionInputs(NamedTuple):
    """Names of the inputs of an attention, and its scale; the mask is empty if there is none."""

    query: str
    keys: str
    values: str
    mask: str
    scale: float


class IndexedGraph:
    """ONNX graph with an index of its values."""

    def __init__(self, model: ModelProto) -> None:
        constants = [node for node in model.graph.node if node.op_type == "Constant"]
        self.nodes = [node for node in model.graph.node if node.op_type != "Constant"]
        """All nodes but constants, in topological order."""
        self.stored = {each.name: each for each in model.graph.initializer}
        self.stored |= {node.output[0]: _tensor(node) for node in constants}
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.outputs = {value.name for value in model.graph.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)

    def constant(self, name: str) -> Tensor:
        """Return the stored tensor of a name; floats in FP32."""
        values = numpy_helper.to_array(self.stored[name])
        return torch.from_numpy(_to_supported_type(values).copy())

    def moves(self, quantizer: NodeProto) -> bool:
        """Return whether an activation's unsigned integers become signed: only dequantizers may read them."""
        read = self.readers[quantizer.output[0]]
        paired = all(each.op_type == "DequantizeLinear" for each in read)
        unsigned = all(self._kind_of_point(each) == TensorProto.UINT8 for each in (quantizer, *read))
        return paired and unsigned and quantizer.output[0] not in self.outputs

    def _kind_of_point(self, node: NodeProto) -> int | None:
        """Return the type of a node's zero point, and so of its integers; None if it is not stored."""
        name = node.input[2] if len(node.input) == 3 else ""
        return self.stored[name].data_type if name in self.stored else None

    def pair(self, node: NodeProto) -> NodeProto | None:
        """Return the dequantizer of a product's activation if it has 8 bits and one scale, else None."""
        pair = self.makers.get(node.input[0]) if node.op_type in ("MatMul", "Gemm") else None
        if pair is None or pair.op_type != "DequantizeLinear":
            return None
        quantizer = self.makers.get(pair.input[0])
        single = pair.input[1] in self.stored and not self.stored[pair.input[1]].dims
        if quantizer is None or quantizer.op_type != "QuantizeLinear" or not single:
            return None
        signed = self._kind_of_point(pair) == TensorProto.INT8 or self.moves(quantizer)
        return pair if signed else None

    def weight(self, node: NodeProto) -> tuple[Tensor, Tensor] | None:
        """Return the int8 weight [inner, width] of a product and its scales, per-tensor or one per column.

        None if the product has no such weight.
        """
        pair = self.makers.get(node.input[1])
        if pair is None or pair.op_type != "DequantizeLinear" or pair.input[0] not in self.stored:
            return None
        plain, transposed = _options(node)
        weight, scales = (self.constant(name) for name in pair.input[:2])
        axis = axis_of(pair) % 2
        if transposed:
            weight, axis = weight.t(), 1 - axis
        zeros = self.constant(pair.input[2]) if len(pair.input) == 3 else torch.zeros(())
        fits = weight.dtype == torch.int8 and weight.dim() == 2 and (scales.dim() == 0 or axis == 1)
        return (weight, scales) if plain and fits and not zeros.any() else None

    def attention(self, node: NodeProto) -> AttentionInputs | None:
        """Return the attention that ends in a product, None if parts are quantized or read elsewhere."""
        softmax = self._sole_maker(node, 0, "Softmax") if node.op_type == "MatMul" else None
        if softmax is None or axis_of(softmax, -1) not in (-1, 3):
            return None
        masked = self._sole_maker(softmax, 0, "Add")
        if masked is None:
            return self._scored(softmax, 0, node.input[1], "")
        matches = (self._scored(masked, at, node.input[1], masked.input[1 - at]) for at in (0, 1))
        return next((each for each in matches if each is not None), None)

    def _scored(self, reader: NodeProto, at: int, values: str, mask: str) -> AttentionInputs | None:
        factor, scaled = 1.0, self._sole_maker(reader, at, "Mul") or self._sole_maker(reader, at, "Div")
        if scaled is not None:
            if scaled.input[1] not in self.stored or self.stored[scaled.input[1]].dims:
                return None
            number = float(self.constant(scaled.input[1]))
            factor, reader, at = number if scaled.op_type == "Mul" else 1 / number, scaled, 0
        scores = self._sole_maker(reader, at, "MatMul")
        if scores is None or not all(self._has_heads(each) for each in (*scores.input, values)):
            return None
        return AttentionInputs(scores.input[0], scores.input[1], values=values, mask=mask, scale=factor)

    def _sole_maker(self, node: NodeProto, at: int, kind: str) -> NodeProto | None:
        """Return the producer of an input if it is of a kind and only this node reads it, else None."""
        name = node.input[at]
        maker = self.makers.get(name)
        alone = len(self.readers[name]) == 1 and name not in self.outputs
        return maker if maker is not None and maker.op_type == kind and alone else None

    def _has_heads(self, name: str) -> bool:
        """Return whether a value has four axes, by the ``Transpose`` that produces it."""
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "Transpose":
            return False
        return len(next((each.ints for each in maker.attribute if each.name == "perm"), ())) == 4


def axis_of(node: NodeProto, default: int = 1) -> int:
    """Return the ``axis`` attribute of a node, such as the axis of a quantizer's scales."""
    return next((each.i for each in node.attribute if each.name == "axis"), default)


def _options(node: NodeProto) -> tuple[bool, bool]:
    """Return whether a product is plain (no factors, left not transposed), and if its right is transposed."""
    options: Mapping[str, Any] = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    plain = options.get("alpha", 1) == options.get("beta", 1) == 1 and not options.get("transA")
    return plain, bool(options.get("transB"))


def _to_supported_type(values: NDArray[Any]) -> NDArray[Any]:
    """Convert to a type that torch computes with: 4 bits to 8, unsigned 16 bits to 32, any float to FP32."""
    if values.dtype == np.uint16:
        return values.astype(np.int32)
    if values.dtype.kind == "V" or values.dtype.name in ("int4", "uint4", "bfloat16"):
        name = values.dtype.name
        return values.astype({"int4": np.int8, "uint4": np.uint8}.get(name, np.float32))
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _tensor(node: NodeProto) -> TensorProto:
    """Return the value of a ``Constant`` node."""
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return value
    kind = np.float32 if "float" in attribute.name else np.int64
    return numpy_helper.from_array(np.array(value, kind), node.output[0])
