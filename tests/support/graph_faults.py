"""Faults of an exported BERT, made in a copy of its graph: each leaves a graph that every runtime takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

BLOCK = "bert.encoder.layer.1"
SITES = "quantization.by_name.bert/encoder/layer/1"
Change = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass
class Editor:
    """A copy of a graph, and what faults are made with."""

    model: ModelProto

    @classmethod
    def of(cls, model: ModelProto) -> Editor:
        copy = ModelProto()
        copy.CopyFrom(model)
        return cls(copy)

    def node(self, name: str) -> NodeProto:
        (found,) = (each for each in self.model.graph.node if each.name == name)
        return found

    def tensor(self, name: str) -> TensorProto:
        (found,) = (each for each in self.model.graph.initializer if each.name == name)
        return found

    def values(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self.tensor(name))

    def change(self, node: NodeProto, index: int, change: Change) -> None:
        """Give a node an input of its own: initializers may be shared."""
        name = f"{node.name}.faulty.{index}"
        old = self.values(node.input[index])
        self.model.graph.initializer.append(numpy_helper.from_array(change(old).astype(old.dtype), name))
        node.input[index] = name

    def bypass(self, node: NodeProto, *, keep: str) -> None:
        """Hand a value on in the place of what a node makes of it."""
        for reader in self.model.graph.node:
            for index, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[index] = keep
        self.model.graph.node.remove(node)

    def behind(self, node: NodeProto, *made: NodeProto) -> None:
        """Put nodes behind one, for all that read it; they read its output, and the last makes ``faulty``."""
        for reader in self.model.graph.node:
            for index, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[index] = made[-1].output[0]
        place = list(self.model.graph.node).index(node)
        for offset, each in enumerate(made, 1):
            self.model.graph.node.insert(place + offset, each)

    def before(self, node: NodeProto, index: int, operator: str, constant: NDArray[Any]) -> None:
        """Put a node of two inputs before an input of a node."""
        self.model.graph.initializer.append(numpy_helper.from_array(constant, "faulty_constant"))
        made = helper.make_node(operator, [node.input[index], "faulty_constant"], ["faulty"])
        node.input[index] = "faulty"
        self.model.graph.node.insert(list(self.model.graph.node).index(node), made)

    def pair(self, site: str) -> tuple[NodeProto, NodeProto]:
        return self.node(f"{site}/QuantizeLinear"), self.node(f"{site}/DequantizeLinear")

    def weight(self, module: str) -> NodeProto:
        return self.node(f"{module}.parametrizations.weight.0/DequantizeLinear")


def scale_off_by_a_percent(edit: Editor) -> None:
    edit.change(edit.pair(f"{SITES}/intermediate/dense:linear/input")[1], 1, lambda scale: scale * 1.01)


def zero_point_off_by_one(edit: Editor) -> None:
    edit.change(edit.pair(f"{SITES}/output/dense:linear/input")[1], 2, _one_off)


def _one_off(point: NDArray[Any]) -> NDArray[Any]:
    return point.astype(np.int32) + (1 if point < 100 else -1)


def scales_of_two_channels_swapped(edit: Editor) -> None:
    edit.change(edit.weight(f"{BLOCK}.intermediate.dense"), 1, _first_two_swapped)


def _first_two_swapped(values: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([values[1::-1], values[2:]])


def pair_missing(edit: Editor) -> None:
    quantize, dequantize = edit.pair(f"{SITES}/output/dense:linear/input")
    edit.bypass(dequantize, keep=quantize.input[0])


def pair_of_probabilities_missing(edit: Editor) -> None:
    quantize, dequantize = edit.pair(f"{SITES}/attention/self:matmul/probs")
    edit.bypass(dequantize, keep=quantize.input[0])


def weight_transposed(edit: Editor) -> None:
    edit.change(edit.weight(f"{BLOCK}.attention.output.dense"), 0, np.transpose)


def bias_lost(edit: Editor) -> None:
    add = edit.node(f"{BLOCK}.attention.output.dense/Add")
    edit.bypass(add, keep=add.input[0])


def weight_of_another_layer(edit: Editor) -> None:
    other = edit.weight("bert.encoder.layer.0.intermediate.dense")
    edit.change(edit.weight(f"{BLOCK}.intermediate.dense"), 0, lambda _: edit.values(other.input[0]))


def quantized_twice(edit: Editor) -> None:
    quantize, dequantize = edit.pair(f"{SITES}/intermediate/dense:linear/input")
    scale = edit.values(dequantize.input[1])
    edit.model.graph.initializer.append(numpy_helper.from_array(scale * np.float32(1.3), "faulty_scale"))
    edit.behind(
        dequantize,
        helper.make_node(
            "QuantizeLinear", [dequantize.output[0], "faulty_scale", quantize.input[2]], ["again"]
        ),
        helper.make_node("DequantizeLinear", ["again", "faulty_scale", quantize.input[2]], ["faulty"]),
    )


def gamma_off_by_a_percent(edit: Editor) -> None:
    edit.change(edit.node(f"{BLOCK}.output.LayerNorm/LayerNormalization"), 1, lambda gamma: gamma * 1.01)


def query_and_value_swapped(edit: Editor) -> None:
    query, value = (edit.weight(f"{BLOCK}.attention.self.{name}") for name in ("query", "value"))
    for index in range(3):
        query.input[index], value.input[index] = value.input[index], query.input[index]


def positions_shifted(edit: Editor) -> None:
    gather = edit.node("bert.embeddings.position_embeddings/Gather")
    edit.before(gather, 1, "Add", np.array(1, np.int64))


def first_position_lost(edit: Editor) -> None:
    gather = edit.node("bert.embeddings.position_embeddings/Gather")
    edit.change(gather, 0, lambda table: np.concatenate([0 * table[:1], table[1:]]))


def words_permuted(edit: Editor) -> None:
    gather = edit.node("bert.embeddings.word_embeddings/Gather")
    edit.change(gather, 0, lambda table: np.roll(table, 1, axis=0))


def token_types_ignored(edit: Editor) -> None:
    gather = edit.node("bert.embeddings.token_type_embeddings/Gather")
    edit.before(gather, 1, "Mul", np.array(0, np.int64))


def probabilities_too_small(edit: Editor) -> None:
    softmax = edit.node(f"{BLOCK}.attention.self/Softmax")
    edit.model.graph.initializer.append(numpy_helper.from_array(np.float32(254 / 255), "faulty_factor"))
    edit.behind(softmax, helper.make_node("Mul", [softmax.output[0], "faulty_factor"], ["faulty"]))


def channel_zeroed(edit: Editor) -> None:
    edit.change(
        edit.weight(f"{BLOCK}.attention.self.key"), 0, lambda weight: weight * (np.arange(len(weight)) != 3)
    )


def residual_missing(edit: Editor) -> None:
    add = edit.node(f"{BLOCK}.attention.output/Add")
    edit.bypass(add, keep=add.input[0])


def mask_ignored(edit: Editor) -> None:
    add = edit.node(f"{BLOCK}.attention.self/Add")
    edit.bypass(add, keep=add.input[0])


def scale_of_the_query_off(edit: Editor) -> None:
    edit.change(edit.pair(f"{SITES}/attention/self:matmul/query")[1], 1, lambda scale: scale * 1.01)


def zero_point_of_probabilities_off(edit: Editor) -> None:
    edit.change(edit.pair(f"{SITES}/attention/self:matmul/probs")[1], 2, _one_off)


def bias_not_a_number(edit: Editor) -> None:
    edit.change(edit.node("bert.pooler.dense/Add"), 1, lambda bias: bias * np.nan)


FAULTS: dict[Callable[[Editor], None], str] = {
    scale_off_by_a_percent: f"{BLOCK}.intermediate.dense",
    zero_point_off_by_one: f"{BLOCK}.output.dense",
    scales_of_two_channels_swapped: f"{BLOCK}.intermediate.dense",
    pair_missing: f"{BLOCK}.output.dense",
    pair_of_probabilities_missing: f"{BLOCK}.attention.self",
    weight_transposed: f"{BLOCK}.attention.output.dense",
    bias_lost: f"{BLOCK}.attention.output.dense",
    weight_of_another_layer: f"{BLOCK}.intermediate.dense",
    quantized_twice: f"{BLOCK}.intermediate.dense",
    gamma_off_by_a_percent: f"{BLOCK}.output.LayerNorm",
    query_and_value_swapped: f"{BLOCK}.attention.self.query",
    positions_shifted: "bert.embeddings.position_embeddings",
    first_position_lost: "bert.embeddings.position_embeddings",
    words_permuted: "bert.embeddings.word_embeddings",
    token_types_ignored: "bert.embeddings.token_type_embeddings",
    probabilities_too_small: f"{BLOCK}.attention.self",
    channel_zeroed: f"{BLOCK}.attention.self.key",
    residual_missing: f"{BLOCK}.attention.output.LayerNorm",
    mask_ignored: f"{BLOCK}.attention.self",
    scale_of_the_query_off: f"{BLOCK}.attention.self",
    zero_point_of_probabilities_off: f"{BLOCK}.attention.self",
    bias_not_a_number: "bert.pooler.dense",
}
"""Each with the module that is to be named first."""


def with_fault(model: onnx.ModelProto, fault: Callable[[Editor], None]) -> ModelProto:
    """A graph with a fault in it; the model stays as it is."""
    edit = Editor.of(model)
    fault(edit)
    return edit.model
