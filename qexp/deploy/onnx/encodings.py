"""Graphs in floating point beside encodings, the form in which AIMET and Qualcomm's converters take grids.

A graph is exported with a node for each use of a grid (:mod:`qexp.deploy.onnx.quantization_nodes`). Here
these nodes are taken out again: an activation keeps its tensor, whose name the encoding then has, and a
weight becomes a constant in floating point, with the values of its grid. So names are right by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor, nn

from qexp.custom_ops import PER_TENSOR
from qexp.deploy.onnx.export import translate
from qexp.deploy.onnx.io import checked, write
from qexp.deploy.onnx.passes import optimize_graph
from qexp.deploy.onnx.quantization_nodes import DEQUANTIZE, DOMAIN, FAKE_QUANTIZE, TRANSLATIONS
from qexp.deploy.onnx.values import constant, initializer
from qexp.errors import DeployError

MOVES = (
    "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Operators that only move values of their first input, so that it may be quantized before them or behind."""
WITHOUT_GRID = (*MOVES, "Concat", "GatherElements", "GatherND", "Pad", "Split", "Tile")
"""Operators whose output has the grid of their input to AIMET, so that it can have no encoding of its own."""
_WRAPPER, _PARAMETRIZED = "model.", ".parametrizations."


@dataclass(frozen=True)
class Encoding:
    """Grid of a tensor, with integers from 0 to ``2**bits - 1``: ``x = (q - zero_point) * scale``."""

    bits: int
    scale: tuple[float, ...]
    """One number, or one for each index of ``axis``."""
    zero_point: tuple[int, ...]
    """In the length of ``scale``."""
    axis: int | None = None
    """Axis of the tensor with a range for each index; None for a single range."""

    @property
    def symmetric(self) -> bool:
        """Whether zero is in the middle of the integers, as of a signed grid with zero point 0."""
        return set(self.zero_point) == {2 ** (self.bits - 1)}


@dataclass(frozen=True)
class EncodedGraph:
    """Tensors of a graph in floating point that have grids."""

    activations: tuple[tuple[ir.Value, Encoding], ...]
    weights: tuple[tuple[ir.Value, Encoding], ...]
    copied: tuple[ir.Value, ...]
    """Activations that are a product with one, as their source is also read as it is or on another grid."""
    without: tuple[ir.Value, ...]
    """Quantized tables with a range for each row, which have no encoding; their values are on the grid."""


def take_out_grids(graph: ir.Graph, weight_bits: Mapping[str, int]) -> EncodedGraph:
    """Replace the nodes of grids by the tensors that they quantize, in place.

    Args:
        graph: Graph with the nodes of :mod:`qexp.deploy.onnx.quantization_nodes`.
        weight_bits: Bit-width of each quantized weight, by its name in the model.

    Raises:
        DeployError: A grid is no constant, has a range for each dimension or block, or leaves integers out.
    """
    nodes = list(graph)
    weights = _Weights(graph, weight_bits)
    for node in nodes:
        if node.op_type == DEQUANTIZE:
            weights.take_out(node)
    activations = _Activations(graph)
    for node in nodes:
        if node.op_type == FAKE_QUANTIZE:
            activations.take_out(node)
    without = [value for value, encoding in weights.found.items() if _has_row_ranges(value, encoding)]
    return EncodedGraph(
        tuple(activations.found.items()),
        tuple((value, encoding) for value, encoding in weights.found.items() if value not in without),
        tuple(activations.copied),
        tuple(without),
    )


def _has_row_ranges(weight: ir.Value, encoding: Encoding) -> bool:
    """Return whether a weight is looked up and has a range for each row: AIMET refuses it in each version."""
    return encoding.axis is not None and any(use.node.op_type == "Gather" for use in weight.uses())


def write_encoded(
    model: nn.Module, path: Path, *, example: Mapping[str, Tensor], weight_bits: Mapping[str, int]
) -> EncodedGraph:
    """Write a quantized model in floating point, and return which of its tensors have grids.

    Intermediate tensors are named after their module and operator, as in
    ``bert.pooler.dense/Gemm_output_0``, and weights as in the model.

    Args:
        model: Model in export form, as in :func:`qexp.deploy.onnx.export.export_onnx`.
        path: File to write, atomically; its folder must exist.
        example: As in ``export_onnx``.
        weight_bits: As in :func:`take_out_grids`.

    Raises:
        DeployError: The model cannot be exported, or has a grid that no encoding can hold.
    """
    graph, axes = translate(model, TRANSLATIONS, example=example)
    encoded = take_out_grids(graph.graph, weight_bits)
    optimize_graph(graph, axes)
    for value in list(graph.graph.initializers.values()):
        value.name = str(value.name).removeprefix(_WRAPPER)
    for node in graph.graph:
        for index, value in enumerate(node.outputs):
            if not value.is_graph_output():
                value.name = f"{node.name}_output_{index}"
    for copy in encoded.copied:
        _name_copy(copy)
    graph.opset_imports.pop(DOMAIN, None)
    write(checked(graph), path)
    return encoded


def _name_copy(copy: ir.Value) -> None:
    """Name a product with one after what it copies."""
    product = copy.producer()
    assert product is not None
    assert product.inputs[0] is not None
    product.name = f"{product.inputs[0].name}.quantized"
    if not copy.is_graph_output():
        copy.name = product.name


class _Weights:
    """Constants in floating point in place of stored weights; a weight that several nodes read is one."""

    def __init__(self, graph: ir.Graph, bits: Mapping[str, int]) -> None:
        self.graph, self.bits = graph, bits
        self.found: dict[ir.Value, Encoding] = {}
        self._made: dict[tuple[Any, ...], ir.Value] = {}

    def take_out(self, node: ir.Node) -> None:
        """Give the readers of a weight its values, transposed as they read them."""
        output = node.outputs[0]
        for use in list(output.uses()):
            reader = use.node
            if reader.op_type == "Transpose":
                turned = self._value(node, tuple(reader.attributes.get_ints("perm", (1, 0))))
                reader.outputs[0].replace_all_uses_with(turned)
                self.graph.remove(reader, safe=True)
            else:
                reader.replace_input_with(use.idx, self._value(node, None))
        self.graph.remove(node, safe=True)

    def _value(self, node: ir.Node, order: tuple[int, ...] | None) -> ir.Value:
        axis = node.attributes["axis"].as_int()
        key = (*node.inputs, axis, order)
        if key not in self._made:
            self._made[key] = self._add(node, axis, order)
        return self._made[key]

    def _add(self, node: ir.Node, axis: int, order: tuple[int, ...] | None) -> ir.Value:
        stored, scale, zero_point = (_numbers(value) for value in node.inputs)
        name = _parameter(str(node.inputs[0].name if node.inputs[0] is not None else ""))
        if block := node.attributes["block"].as_int():
            raise DeployError(
                f"{name}: a weight in blocks of {block}; encodings hold one range for a tensor or for "
                "each channel; set scheme.weight.group_size=null, or write no encodings"
            )
        bits = self.bits[name]
        shape = [-1 if index == axis else 1 for index in range(stored.ndim)]
        zero = zero_point.reshape(shape).astype(np.float32)
        values = (stored.astype(np.float32) - zero) * scale.reshape(shape)
        if order is not None:
            values = values.transpose(order).copy()
        value = initializer(self.graph, self._free(name), values)
        along = None if axis == PER_TENSOR else axis if order is None else order.index(axis)
        # Stored integers are signed; see StoredWeight.
        self.found[value] = _encoding(bits, scale, zero_point.astype(np.int64) + 2 ** (bits - 1), along)
        return value

    def _free(self, name: str) -> str:
        """Return a name for a constant: that of the parameter, with a number if it is taken."""
        number, free = 1, name
        while free in self.graph.initializers:
            number += 1
            free = f"{name}.{number}"
        return free


class _Activations:
    """Encodings of tensors in place of nodes that quantize them."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.found: dict[ir.Value, Encoding] = {}
        self.copied: list[ir.Value] = []
        self._one: ir.Value | None = None

    def take_out(self, node: ir.Node) -> None:
        """Give a node's input its encoding, and the node's readers its input."""
        encoding, x = _grid(node), node.inputs[0]
        assert x is not None
        if not self._has(x, encoding):
            source = _source(x, node)
            if source in self.found or _is_read_elsewhere(source, x, node) or not _may_have_grid(source):
                source = x = self._copy(x, node)
            self.found[source] = encoding
        self._pass_on(node, x)

    def _has(self, value: ir.Value, encoding: Encoding) -> bool:
        """Return whether a value is on the grid already, since it was only moved after it was quantized."""
        while value not in self.found:
            producer = value.producer()
            if producer is None or producer.op_type not in MOVES or producer.inputs[0] is None:
                return False
            value = producer.inputs[0]
        return self.found[value] == encoding

    def _copy(self, value: ir.Value, node: ir.Node) -> ir.Value:
        """Return the product with one; converters would remove an ``Identity``, and the encoding with it."""
        if self._one is None:
            self._one = initializer(self.graph, "one", np.array(1, np.float32))
        copy = ir.node("Mul", [value, self._one])
        self.graph.insert_before(node, copy)
        self.copied.append(copy.outputs[0])
        return copy.outputs[0]

    def _pass_on(self, node: ir.Node, value: ir.Value) -> None:
        output = node.outputs[0]
        for index, result in enumerate(self.graph.outputs):
            if result is output:
                self.graph.outputs[index] = value
                value.shape, value.type = output.shape, output.type
                value.name, output.name = output.name, value.name
        output.replace_all_uses_with(value)
        self.graph.remove(node, safe=True)


def _source(value: ir.Value, reader: ir.Node) -> ir.Value:
    """Return the tensor that was moved to where it is quantized, as long as nothing else reads it."""
    while _only_reader(value) is reader:
        producer = value.producer()
        before = producer.inputs[0] if producer is not None and producer.op_type in MOVES else None
        if producer is None or before is None or before.is_initializer():
            break
        value, reader = before, producer
    return value


def _may_have_grid(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type not in WITHOUT_GRID


def _only_reader(value: ir.Value) -> ir.Node | None:
    readers = [use.node for use in value.uses()]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def _is_read_elsewhere(source: ir.Value, x: ir.Value, node: ir.Node) -> bool:
    """Return whether an operator reads a tensor as it is, besides the way to the node that quantizes it."""
    reader: ir.Node | None = node
    while x is not source:
        reader = x.producer()
        assert reader is not None
        assert reader.inputs[0] is not None
        x = reader.inputs[0]
    return _only_reader(source) is not reader


def _grid(node: ir.Node) -> Encoding:
    """Return the grid of a node.

    Raises:
        DeployError: It is no constant, has a range for each dimension, or leaves integers out.
    """
    name = node.inputs[1].name if node.inputs[1] is not None else None
    low, high = (node.attributes[name].as_int() for name in ("qmin", "qmax"))
    bits = (high - low).bit_length()
    if node.attributes["axis"].as_int() != PER_TENSOR:
        raise DeployError(
            f"{name}: an activation with a range for each dimension, or group of them; encodings hold one "
            "for a tensor; set scheme.activation.granularity=per_tensor"
        )
    if high - low != 2**bits - 1:
        raise DeployError(
            f"{name}: an activation on integers from {low} to {high}; encodings hold all of {bits} bits; "
            "choose a scheme that uses them"
        )
    scale, zero_point = (_numbers(value) for value in node.inputs[1:])
    return _encoding(bits, scale, zero_point.astype(np.int64) - low, None)


def _encoding(bits: int, scale: NDArray[Any], zero_point: NDArray[Any], axis: int | None) -> Encoding:
    scales, zeros = (np.atleast_1d(values).ravel().tolist() for values in (scale, zero_point))
    return Encoding(bits, tuple(scales), tuple(zeros), axis)


def _numbers(value: ir.Value | None) -> NDArray[Any]:
    stored = constant(value)
    if stored is None:
        name = value.name if value is not None else None
        raise DeployError(f"{name}: a grid that is computed; encodings hold constants; choose fixed ranges")
    return stored.numpy()


def _parameter(name: str) -> str:
    """Return a parameter's name in the model, of the name that the exporter gives the stored integers."""
    module, _, rest = name.removeprefix(_WRAPPER).partition(_PARAMETRIZED)
    return f"{module}.{rest.removesuffix('.original')}".removeprefix(".")
