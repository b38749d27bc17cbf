"""Wrong graphs made from a sound one: what the gate has to catch.

A fault is done to the exported graph of a quantized BERT encoder, or to what its engine is fed. Each is one
that exporters, loaders, runtimes and preprocessing have been seen to make, or the smallest of its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

Array = NDArray[Any]
Feed = dict[str, Array]


class Graph:
    """A graph, with what a fault needs to find its way in it."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        self.layers = 1 + max(
            int(part.split(".")[0])
            for tensor in proto.graph.initializer
            if len(part := tensor.name.split("encoder.layer.")[-1]) < len(tensor.name)
        )
        self._made = 0

    @property
    def middle(self) -> str:
        """Name of the middle layer, as in names of nodes."""
        return f"bert.encoder.layer.{self.layers // 2}"

    def node(self, name: str, operator: str, nth: int = 0) -> NodeProto:
        """The nth node of an operator whose name contains ``name``."""
        nodes = [each for each in self.proto.graph.node if each.op_type == operator and name in each.name]
        return nodes[nth]

    def pair(self, name: str) -> tuple[NodeProto, NodeProto]:
        """QuantizeLinear and DequantizeLinear of an activation."""
        named = name.replace(".", "/") + "/"
        return self.node(named, "QuantizeLinear"), self.node(named, "DequantizeLinear")

    def weight(self, module: str) -> NodeProto:
        """DequantizeLinear of a module's weight."""
        return self.node(f"{module}.parametrizations.weight", "DequantizeLinear")

    def values(self, name: str) -> Array:
        """A stored tensor."""
        return np.array(numpy_helper.to_array(self._stored(name)))

    def store(self, name: str, values: Array) -> None:
        """Give a stored tensor other values."""
        self._stored(name).CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))

    def parameter(self, ending: str) -> str:
        """Name of the stored tensor that ends so."""
        (name,) = [each.name for each in self.proto.graph.initializer if each.name.endswith(ending)]
        return name

    def change(self, node: NodeProto, place: int, change: Callable[[Array], Array]) -> None:
        """Give one node a changed copy of one of its stored inputs; others keep theirs."""
        self._made += 1
        name = f"fault.{self._made}"
        values = self.values(node.input[place])
        changed = np.asarray(change(values)).astype(values.dtype)
        self.proto.graph.initializer.append(numpy_helper.from_array(changed, name))
        node.input[place] = name

    def constant(self, values: Any, kind: Any = np.float32) -> str:
        """Name of a new stored tensor."""
        self._made += 1
        name = f"fault.{self._made}"
        self.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def behind(self, value: str, *operators: tuple[str, list[str], dict[str, Any]]) -> None:
        """Put operators behind a value; each gets the value so far, further inputs and attributes."""
        place = next(index for index, each in enumerate(self.proto.graph.node) if value in each.output) + 1
        readers = [each for each in self.proto.graph.node if value in each.input]
        current, made = value, []
        for operator, inputs, attributes in operators:
            self._made += 1
            output = f"fault.{self._made}"
            made.append(helper.make_node(operator, [current, *inputs], [output], name=output, **attributes))
            current = output
        for reader in readers:
            reader.input[:] = [current if name == value else name for name in reader.input]
        for offset, node in enumerate(made):
            self.proto.graph.node.insert(place + offset, node)

    def bypass(self, value: str, source: str) -> None:
        """Let everything that reads one value read another."""
        for node in self.proto.graph.node:
            node.input[:] = [source if name == value else name for name in node.input]

    def _stored(self, name: str) -> onnx.TensorProto:
        return next(each for each in self.proto.graph.initializer if each.name == name)


@dataclass(frozen=True)
class Fault:
    """What goes wrong."""

    name: str
    graph: Callable[[Graph], None] | None = None
    """Does it to the graph."""
    feed: Callable[[Feed], Feed] | None = None
    """Does it to a batch: int64 [rows, tokens] by input."""
    module: str = ""
    """End of the name of the module that is to be named, with ``@`` for the middle layer; any of several,
    separated by ``|``."""


def _scale(place: str, factor: float, *, both: bool) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        for node in graph.pair(graph.middle + place)[0 if both else 1 :]:
            graph.change(node, 1, lambda scale: scale * factor)

    return change


def _point(graph: Graph) -> None:
    graph.change(
        graph.pair(graph.middle + ".attention.output.dense:linear.input")[1], 2, lambda zero: zero + 1
    )


def _weight_scale(graph: Graph) -> None:
    graph.change(graph.weight(graph.middle + ".intermediate.dense"), 1, lambda scale: scale * 1.01)


def _swapped_channels(graph: Graph) -> None:
    def swap(scale: Array) -> Array:
        first, last = int(scale.argmin()), int(scale.argmax())
        scale[[first, last]] = scale[[last, first]]
        return scale

    graph.change(graph.weight(graph.middle + ".output.dense"), 1, swap)


def _rounding(
    function: Callable[[Graph, str], list[tuple[str, list[str], dict[str, Any]]]],
) -> Callable[[Graph], None]:
    """Another rule of rounding at one site: the value is rounded by that rule before it is quantized."""

    def change(graph: Graph) -> None:
        quantize, _ = graph.pair(graph.middle + ".intermediate.dense:linear.input")
        scale = quantize.input[1]
        source = quantize.input[0]
        reader_of = f"{source}.rounded"
        place = list(graph.proto.graph.node).index(quantize)
        current, made = source, list[onnx.NodeProto]()
        for operator, inputs, attributes in [
            ("Div", [scale], {}),
            *function(graph, scale),
            ("Mul", [scale], {}),
        ]:
            output = f"{reader_of}.{len(made)}"
            made.append(helper.make_node(operator, [current, *inputs], [output], name=output, **attributes))
            current = output
        quantize.input[0] = current
        for offset, node in enumerate(made):
            graph.proto.graph.node.insert(place + offset, node)

    return change


def _away(graph: Graph, scale: str) -> list[tuple[str, list[str], dict[str, Any]]]:
    """Halves away from zero: the smallest number above a half is added before the rest is cut off."""
    return [("Mul", [graph.constant(1 + 2**-22)], {})]


def _down(graph: Graph, scale: str) -> list[tuple[str, list[str], dict[str, Any]]]:
    return [("Floor", [], {})]


def _no_pair(graph: Graph) -> None:
    quantize, dequantize = graph.pair(graph.middle + ".output.dense:linear.input")
    graph.bypass(dequantize.output[0], quantize.input[0])


def _twice(graph: Graph) -> None:
    """Once more, on a coarser grid; in plain arithmetic, since runtimes merge two Q/DQ pairs in a row."""
    quantize, dequantize = graph.pair(graph.middle + ".intermediate.dense:linear.input")
    scale = graph.constant(1.5 * graph.values(quantize.input[1]))
    graph.behind(dequantize.output[0], ("Div", [scale], {}), ("Round", [], {}), ("Mul", [scale], {}))


def _saturated(graph: Graph) -> None:
    """Pairs of products of uint8 by int8 are added in 16 bits, as by AVX2's vpmaddubsw."""
    module = graph.middle + ".attention.output.dense"
    product, weight = graph.node(module + "/", "MatMul"), graph.weight(module)
    quantize, _ = graph.pair(module + ":linear.input")
    step, zero = (graph.values(quantize.input[place]) for place in (1, 2))
    shift = 128 if zero.dtype == np.int8 else 0
    scale = graph.values(weight.input[1]).astype(np.float32)
    integers = graph.values(weight.input[0]).astype(np.float32)
    offset = float(zero.astype(np.int16)) + shift
    correction = offset * integers.sum(axis=0)
    even, odd = (graph.constant(integers[start::2][None, None]) for start in (0, 1))
    start, width = product.input[0], integers.shape[0]
    names = iter(f"saturated.{index}" for index in range(20))
    made: list[NodeProto] = []

    def add(operator: str, inputs: list[str], **attributes: Any) -> str:
        output = next(names)
        made.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    unsigned = add("Add", [add("Div", [start, graph.constant(step)]), graph.constant(offset)])
    halves = []
    for first, weights in ((0, even), (1, odd)):
        picked = add("Gather", [unsigned, graph.constant(np.arange(first, width, 2), np.int64)], axis=2)
        wide = add("Unsqueeze", [picked, graph.constant([3], np.int64)])
        halves.append(add("Mul", [wide, weights]))
    limits = [graph.constant(value) for value in (-32768.0, 32767.0)]
    clipped = add("Clip", [add("Add", halves), *limits])
    total = add("ReduceSum", [clipped, graph.constant([2], np.int64)], keepdims=0)
    exact = add("Sub", [total, graph.constant(correction)])
    result = add("Mul", [exact, graph.constant(scale * np.float32(step))])
    place = list(graph.proto.graph.node).index(product)
    output = product.output[0]
    del graph.proto.graph.node[place]
    for offset_, node in enumerate(made):
        graph.proto.graph.node.insert(place + offset_, node)
    graph.bypass(output, result)


def _transposed(graph: Graph) -> None:
    graph.change(graph.weight(graph.middle + ".attention.output.dense"), 0, lambda weight: weight.T)


def _bias_lost(graph: Graph) -> None:
    name = graph.parameter(graph.middle.removeprefix("bert.") + ".attention.output.dense.bias")
    graph.store(name, 0 * graph.values(name))


def _biases_swapped(graph: Graph) -> None:
    names = [graph.parameter(f"layer.{layer}.intermediate.dense.bias") for layer in (0, graph.layers // 2)]
    values = [graph.values(name) for name in names]
    for name, value in zip(names, reversed(values), strict=True):
        graph.store(name, value)


def _stale(graph: Graph) -> None:
    """The weight as it was some steps earlier: one in ten integers is off by one."""

    def change(weight: Array) -> Array:
        moved = np.random.default_rng(0).choice([-1, 0, 1], weight.shape, p=[0.05, 0.9, 0.05])
        return np.clip(weight.astype(np.int16) + moved, -127, 127)

    graph.change(graph.weight(graph.middle + ".attention.self.value"), 0, change)


def _of_another_layer(graph: Graph) -> None:
    other = graph.weight(f"bert.encoder.layer.{graph.layers // 2 - 1}.output.dense")
    graph.weight(graph.middle + ".output.dense").input[0] = other.input[0]


def _value_for_query(graph: Graph) -> None:
    query, value = (graph.weight(f"{graph.middle}.attention.self.{name}") for name in ("query", "value"))
    for place in (0, 1):
        query.input[place], value.input[place] = value.input[place], query.input[place]


def _positions(graph: Graph) -> None:
    name = graph.parameter("position_embeddings.weight")
    graph.store(name, np.roll(graph.values(name), 1, axis=0))


def _overflow(graph: Graph) -> None:
    """A sum that FP16 cannot hold."""
    half: Any = ("Cast", [], {"to": onnx.TensorProto.FLOAT16})
    single: Any = ("Cast", [], {"to": onnx.TensorProto.FLOAT})
    product = graph.node(graph.middle + ".output.dense/", "Add").output[0]
    large, back = graph.constant(2.0**16), graph.constant(2.0**-16)
    graph.behind(product, ("Mul", [large], {}), half, single, ("Mul", [back], {}))


def _softmax(graph: Graph) -> None:
    value = graph.node(graph.middle + ".attention.self/", "Softmax").output[0]
    graph.behind(value, ("Mul", [graph.constant(254 / 255)], {}))


def _unscaled(graph: Graph) -> None:
    graph.change(graph.node(graph.middle + ".attention.self/", "Mul"), 1, lambda _: np.ones_like(_))


def _norm(parameter: str, change: Callable[[Array], Array]) -> Callable[[Graph], None]:
    def of_graph(graph: Graph) -> None:
        name = graph.parameter(f"{graph.middle.removeprefix('bert.')}.output.LayerNorm.{parameter}")
        if "attention" not in name:
            graph.store(name, change(graph.values(name)))

    return of_graph


def _epsilon(graph: Graph) -> None:
    node = graph.node(graph.middle + ".output.LayerNorm", "LayerNormalization")
    (attribute,) = (each for each in node.attribute if each.name == "epsilon")
    attribute.f = 1e-2


def _clipped(graph: Graph) -> None:
    """The upper half of an unsigned grid is lost."""
    quantize, dequantize = graph.pair(graph.middle + ".output.dense:linear.input")
    scale, zero = (graph.values(name).astype(np.float32) for name in quantize.input[1:])
    limits = np.iinfo(graph.values(quantize.input[2]).dtype)
    most = graph.constant(scale * ((limits.max + limits.min) // 2 - zero))
    graph.behind(dequantize.output[0], ("Min", [most], {}))


def _channel_lost(graph: Graph) -> None:
    def change(scale: Array) -> Array:
        scale[int(scale.argmax())] = 0
        return scale

    graph.change(graph.weight(graph.middle + ".intermediate.dense"), 1, change)


def _residual(graph: Graph) -> None:
    add = graph.node(graph.middle + ".output/", "Add")
    add.input[1] = graph.constant(np.zeros(1))


def _classes(graph: Graph) -> None:
    """Swap the outputs of the head; a single one changes its sign."""
    answers = any(each.name.startswith("qa_outputs.") for each in graph.proto.graph.node)
    weight = graph.weight("qa_outputs" if answers else "classifier")
    single = graph.values(weight.input[0]).shape[0] == 1
    for place in (0, 1):
        if not single:
            graph.change(weight, place, lambda values: values[::-1])
        elif place == 0:
            graph.change(weight, place, lambda values: -values)


def _head_bias(graph: Graph) -> None:
    (name,) = [each.name for each in graph.proto.graph.initializer
               if each.name.endswith(("classifier.bias", "qa_outputs.bias"))]  # fmt: skip
    values = graph.values(name)
    values[0] += 0.05
    graph.store(name, values)


def _seven_bits(graph: Graph) -> None:
    def change(weight: Array) -> Array:
        return np.clip(weight, -64, 63)

    graph.change(graph.weight(graph.middle + ".output.dense"), 0, change)


def _tanh_gelu(graph: Graph) -> None:
    node = graph.node(graph.middle + ".intermediate", "Gelu")
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("approximate", "tanh"))


def _ones(feed: Feed) -> Feed:
    return {**feed, "attention_mask": np.ones_like(feed["attention_mask"])}


def _one_type(feed: Feed) -> Feed:
    return {**feed, "token_type_ids": np.zeros_like(feed["token_type_ids"])}


def _without_first(feed: Feed) -> Feed:
    """The first special token is missing: all others move by one place."""
    return {name: np.concatenate([values[:, 1:], 0 * values[:, :1]], axis=1) for name, values in feed.items()}


def _cut(feed: Feed) -> Feed:
    """Words behind a third of the longest row are masked out, as by a smaller maximum length."""
    mask = feed["attention_mask"].copy()
    mask[:, max(8, mask.shape[1] // 3) :] = 0
    return {**feed, "attention_mask": mask}


def _unknown(feed: Feed) -> Feed:
    """Every tenth word is another: a vocabulary with some other numbers."""
    ids = feed["input_ids"].copy()
    ids[ids % 10 == 7] = 100
    return {**feed, "input_ids": ids}


FAULTS: tuple[Fault, ...] = (
    Fault("activation scale 1 % off", _scale(".output.dense:linear.input", 1.01, both=True),
          module="@.output.dense"),
    Fault("scale 1 % off in DequantizeLinear", _scale(".intermediate.dense:linear.input", 1.01, both=False),
          module="@.intermediate.dense"),
    Fault("weight scales 1 % off", _weight_scale, module="@.intermediate.dense"),
    Fault("zero point off by one", _point, module="@.attention.output.dense"),
    Fault("two channels' scales swapped", _swapped_channels, module="@.output.dense"),
    Fault("halves rounded away from zero", _rounding(_away), module="@.intermediate.dense"),
    Fault("rounded down", _rounding(_down), module="@.intermediate.dense"),
    Fault("Q/DQ pair missing", _no_pair, module="@.output.dense"),
    Fault("quantized twice", _twice, module="@.intermediate.dense"),
    Fault("products saturate in 16 bits", _saturated, module="@.attention.output.dense"),
    Fault("weight transposed", _transposed, module="@.attention.output.dense"),
    Fault("bias lost", _bias_lost, module="@.attention.output.dense"),
    Fault("biases of two layers swapped", _biases_swapped, module="layer.0.intermediate.dense"),
    Fault("stale weight", _stale, module="@.attention.self.value"),
    Fault("weight of another layer", _of_another_layer, module="@.output.dense"),
    Fault("query and value swapped", _value_for_query, module="@.attention.self.query"),
    Fault("positions shifted by one", _positions, module="embeddings.LayerNorm"),
    Fault("FP16 overflow", _overflow, module="@.output.LayerNorm|@.output.dense"),
    Fault("softmax times 254/255", _softmax, module="@.attention.output.dense"),
    Fault("scores not divided by the root of the width", _unscaled, module="@.attention.output.dense"),
    Fault("norm weight 1 % off", _norm("weight", lambda values: 1.01 * values), module="@.output.LayerNorm"),
    Fault("norm epsilon 1e-2", _epsilon, module="@.output.LayerNorm"),
    Fault("upper half of a grid lost", _clipped, module="@.output.dense"),
    Fault("output channel lost", _channel_lost, module="@.intermediate.dense"),
    Fault("residual lost", _residual, module="@.output.LayerNorm"),
    Fault("outputs swapped", _classes, module="classifier|qa_outputs"),
    Fault("bias of the head off by 0.05", _head_bias, module="classifier|qa_outputs"),
    Fault("weights clipped to 7 bits", _seven_bits, module="@.output.dense"),
    Fault("GELU approximated by tanh", _tanh_gelu, module="@.output.dense"),
    Fault("mask ignored", feed=_ones),
    Fault("token types ignored", feed=_one_type),
    Fault("first special token missing", feed=_without_first),
    Fault("texts cut", feed=_cut),
    Fault("some words unknown", feed=_unknown),
)  # fmt: skip
"""29 of the graph, 5 of what it is fed."""


def wrong(fault: Fault, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the fault done to it; one of its inputs leaves it as it is."""
    graph = Graph(proto)
    if fault.graph is not None:
        fault.graph(graph)
    return graph.proto


def fed(fault: Fault, feed: Mapping[str, Array]) -> Feed:
    """A batch with the fault done to it."""
    return dict(feed) if fault.feed is None else fault.feed(dict(feed))
