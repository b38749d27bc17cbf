"""Translation of ONNX nodes to a torch module: one call per node, and integer products where possible.

``DequantizeLinear(QuantizeLinear(x)) @ DequantizeLinear(stored)`` becomes one integer product if the
activation has one scale and 8 bits, and the weight is int8 with zero point 0 and one scale, or one per
column. Other quantized values are dequantized and computed in floating point: 16-bit grids, activations with
per-channel scales, and the two products of an attention. The latter have no stored operand, torch has no
batched integer product, and one call per head costs more than it gains.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from qexp.deploy.runtimes.torch_int8 import int8_matmul
from qexp.deploy.runtimes.torch_int8.graph import IndexedGraph, axis_of
from qexp.deploy.runtimes.torch_int8.operators import IN_PYTHON, OPERATORS, TYPES, attention, cast
from qexp.errors import DeployError

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
OF_SIZES = {
    "Add", "Cast", "Concat", "Div", "Gather", "Identity", "Mul", "Slice", "Squeeze", "Sub", "Unsqueeze",
}  # fmt: skip
"""Operators that compute sizes from sizes."""
MASKED = 2.0**15
"""Magnitude of the number that replaces infinity: finite in every type, also after a score is added."""
ELSEWHERE = "onnxruntime or openvino"
"""Runtimes that support every operator of an exported graph."""


@dataclass(frozen=True)
class ComputeOptions:
    """Device and arithmetic of a translated graph."""

    device: torch.device
    kind: torch.dtype
    """Type of all floats but scales."""
    integer: bool
    """Whether to use integer products where the graph allows it."""


def translate(model: ModelProto, form: ComputeOptions) -> fx.GraphModule:
    """Translate a graph to a module that takes the inputs by position and returns the first output.

    Every call stores the name of its ONNX node in ``meta["onnx"]``, and the name of its operator in
    ``meta["operator"]``.

    Raises:
        DeployError: The graph has an unsupported operator or type.
    """
    translation = _Translation(IndexedGraph(model), form)
    for value in model.graph.input:
        translation.values[value.name] = translation.graph.placeholder(value.name)
    for node in translation.source.nodes:
        translation.add(node)
    translation.graph.output(translation.value(model.graph.output[0].name))
    translation.graph.eliminate_dead_code()
    module = fx.GraphModule(translation.root, translation.graph)
    return module.eval().to(form.device)


@dataclass
class _Translation:
    """Translation in progress."""

    source: IndexedGraph
    form: ComputeOptions
    graph: fx.Graph = field(default_factory=fx.Graph)
    root: nn.Module = field(default_factory=nn.Module)
    values: dict[str, fx.Node] = field(default_factory=dict)
    """Computed values, and values stored in ``root``, by name."""
    sizes: set[str] = field(default_factory=set)
    """Names of values that are Python integers or tuples."""

    def add(self, node: NodeProto) -> None:
        """Translate one node."""
        if node.op_type == "DequantizeLinear" and node.input[0] in self.source.stored:
            self.values[node.output[0]] = self._dequantized(node)
        elif not self._add_product(node) and not self._add_attention(node):
            function, inputs, attributes = self._call(node)
            self._keep(node, self.graph.call_function(function, inputs, attributes))

    def value(self, name: str) -> fx.Node | None:
        """Return a value by its name, None for the empty name; float constants get the type of ``form``."""
        if not name:
            return None
        if name not in self.values:
            self.values[name] = self._store(name, self._typed(name))
        return self.values[name]

    def _keep(self, node: NodeProto, call: fx.Node) -> None:
        call.meta |= {"onnx": node.name or node.output[0], "operator": node.op_type}
        outputs = [name for name in node.output if name]
        if len(outputs) == 1:
            self.values[outputs[0]] = call
            return
        for index, name in enumerate(outputs):
            self.values[name] = self.graph.call_function(operator.getitem, (call, index))

    def _call(self, node: NodeProto) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        attributes = {each.name: _plain(helper.get_attribute_value(each)) for each in node.attribute}
        inputs = self._inputs(node)
        if node.op_type == "Cast":
            return cast, (inputs[0], self._kind(attributes["to"], node)), {}
        if node.op_type == "Range":
            return torch.arange, inputs, {"device": self.form.device}
        if node.op_type == "DequantizeLinear":
            attributes["kind"] = self.form.kind
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            raise DeployError(
                f"{node.name or node.output[0]}: torch_int8 does not know the operator {node.op_type}; "
                f"run the graph in {ELSEWHERE}"
            )
        return OPERATORS[node.op_type], inputs, attributes

    def _inputs(self, node: NodeProto) -> tuple[Any, ...]:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            source, scale, *point = node.input
            return self.value(source), self._exactly(scale), *(self._zero_point(node, each) for each in point)
        literal = IN_PYTHON.get(node.op_type, frozenset[int]())
        is_size = node.op_type == "Shape" or self._of_sizes(node)
        if is_size:
            self.sizes.update(node.output)
        return tuple(
            self._literal(name) if is_size or at in literal or self._is_place(node, at) else self.value(name)
            for at, name in enumerate(node.input)
        )

    def _of_sizes(self, node: NodeProto) -> bool:
        """Return whether a node computes sizes; one that slices a table by sizes does not."""
        available = all(name in self.sizes or name in self.source.stored for name in node.input)
        tables = any(
            name in self.source.stored and len(self.source.stored[name].dims) > 1 for name in node.input
        )
        sized = any(name in self.sizes for name in node.input)
        return node.op_type in OF_SIZES and available and sized and not tables

    def _is_place(self, node: NodeProto, at: int) -> bool:
        """Return whether an input is the scalar index of a ``Gather``."""
        index = self.source.stored.get(node.input[1]) if node.op_type == "Gather" and at == 1 else None
        return index is not None and not index.dims

    def _literal(self, name: str) -> Any:
        """Return a constant as Python numbers or a tuple of them; a computed value is returned as it is."""
        if name not in self.source.stored:
            return self.value(name)
        values = numpy_helper.to_array(self.source.stored[name]).tolist()
        return tuple(values) if isinstance(values, list) else values

    def _kind(self, number: int, node: NodeProto) -> torch.dtype:
        if number in FLOATS:
            return self.form.kind
        if number not in TYPES:
            raise DeployError(
                f"{node.name or node.output[0]}: torch_int8 does not know the type "
                f"{TensorProto.DataType.Name(number)}; run the graph in {ELSEWHERE}"
            )
        return TYPES[number]

    def _zero_point(self, node: NodeProto, name: str) -> fx.Node:
        """Return the zero point of a Q/DQ pair, shifted if the integers of the pair are."""
        maker = self.source.makers.get(node.input[0])
        quantizer = node if node.op_type == "QuantizeLinear" else maker
        if quantizer is None or quantizer.op_type != "QuantizeLinear" or not self.source.moves(quantizer):
            return self._exactly(name)
        return self._stored_as(f"{name}.signed", lambda: int8_matmul.signed(self.source.constant(name)))

    def _add_product(self, node: NodeProto) -> bool:
        """Translate a node as an integer product, and return whether it is one."""
        pair = self.source.pair(node) if self.form.integer else None
        weight = self.source.weight(node) if pair is not None else None
        if pair is None or weight is None:
            return False
        stored, scales = weight
        scale, point = (self.source.constant(name) for name in pair.input[1:])
        zero = int8_matmul.signed(point).to(torch.int32)
        device, name = self.form.device, node.output[0]
        parts: dict[str, Callable[[], Tensor]] = {
            "weight": lambda: int8_matmul.padded_weight(stored, device),
            "offset": lambda: zero * stored.sum(0, dtype=torch.int32),
            "scale": lambda: (scale * scales).expand(stored.shape[1]).contiguous(),
        }
        constants = [self._stored_as(f"{name}.{part}", make) for part, make in parts.items()]
        quantized = self.values[pair.input[0]]
        call = self.graph.call_function(int8_matmul.product, (quantized, *constants, self.form.kind))
        self._keep(node, call)
        if node.op_type == "Gemm" and len(node.input) == 3:
            call = self.graph.call_function(operator.add, (call, self.value(node.input[2])))
            self.values[node.output[0]] = call
        return True

    def _add_attention(self, node: NodeProto) -> bool:
        """Translate a node as the end of an attention, and return whether it is one.

        Calls that become unused are removed as dead code.
        """
        match = self.source.attention(node)
        if match is None:
            return False
        inputs = (self.value(name) for name in match[:4])
        self._keep(node, self.graph.call_function(attention, (*inputs, match.scale)))
        self.values[node.output[0]].meta["operator"] = "Attention"
        return True

    def _dequantized(self, node: NodeProto) -> fx.Node:
        """Store a dequantized weight for float products; dead code elimination drops an unused one."""
        parts = map(self.source.constant, node.input)
        block = next((each.i for each in node.attribute if each.name == "block_size"), 0)
        values = int8_matmul.dequantize(*parts, axis=axis_of(node), block=block, kind=self.form.kind)
        return self._store(node.output[0], values)

    def _typed(self, name: str) -> Tensor:
        """Return a constant in the type that the graph computes in."""
        tensor = self.source.constant(name)
        if not tensor.is_floating_point() or self._must_be_full(name, tensor):
            return tensor
        infinite = tensor.abs() >= 1e30
        return torch.where(infinite, tensor.sign() * MASKED, tensor).to(self.form.kind)

    def _must_be_full(self, name: str, tensor: Tensor) -> bool:
        """Return whether a constant stays in FP32: a table of scales, or a number subnormal in FP16."""
        if tensor.dim() == 1:
            return any(
                each.op_type == "Gather" and each.input[0] == name for each in self.source.readers[name]
            )
        return tensor.dim() == 0 and 0 < abs(float(tensor)) < torch.finfo(torch.float16).tiny

    def _exactly(self, name: str) -> fx.Node:
        return self._stored_as(f"{name}.exact", lambda: self.source.constant(name))

    def _stored_as(self, name: str, make: Callable[[], Tensor]) -> fx.Node:
        if name not in self.values:
            self.values[name] = self._store(name, make())
        return self.values[name]

    def _store(self, name: str, tensor: Tensor) -> fx.Node:
        attribute = f"stored_{len(self.root._buffers)}"
        self.root.register_buffer(attribute, tensor)
        return self.graph.get_attr(attribute)


def _plain(value: Any) -> Any:
    """Convert an attribute to a type that torch takes."""
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, (int, float, str)) else tuple(value)
