"""Tests of the layers of a graph, and of the parts that compute them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from qexp.analysis.subgraphs import GraphLayer, Subgraphs, layers_of
from qexp.errors import DeployError


@pytest.fixture
def model() -> onnx.ModelProto:
    """A linear layer in a block that adds what it was given, and a norm behind that."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], name="block.dense/MatMul"),
        helper.make_node("Add", ["product", "b"], ["linear"], name="block.dense/Add"),
        helper.make_node("Relu", ["linear"], ["quantized"], name="quantization.by_name.block/dense:x/Relu"),
        helper.make_node("Add", ["quantized", "x"], ["sum"], name="block/Add"),
        helper.make_node(
            "LayerNormalization", ["sum", "b"], ["normed"], name="outer.norm/LayerNormalization"
        ),
        helper.make_node("Identity", ["normed"], ["y"], name="Identity"),
    ]
    weight = numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    bias = numpy_helper.from_array(np.ones(2, np.float32), "b")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy")
    graph = helper.make_graph(nodes, "model", [x], [y], [weight, bias])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_layers_are_modules_with_the_last_word(model: onnx.ModelProto) -> None:
    assert layers_of(model) == [
        GraphLayer("block.dense", "linear"), GraphLayer("block", "sum"), GraphLayer("outer.norm", "normed"),
    ]  # fmt: skip


def test_a_module_that_ends_in_another_is_named_by_that(model: onnx.ModelProto) -> None:
    model.graph.node[4].name = "block.norm/LayerNormalization"
    assert [layer.module for layer in layers_of(model)] == ["block.dense", "block.norm"]


def test_a_part_begins_at_what_is_given(model: onnx.ModelProto) -> None:
    part = Subgraphs(model).part("sum", {"linear": (3, 2), "sum": (3, 2), "normed": (3, 2)})
    assert [node.op_type for node in part.graph.node] == ["Relu", "Add"]
    assert [value.name for value in part.graph.input] == ["x", "linear"]
    assert list(part.graph.initializer) == []
    x, linear = np.ones((3, 2), np.float32), np.array([[-1, 2]] * 3, np.float32)
    (result,) = ReferenceEvaluator(part).run(None, {"x": x, "linear": linear})
    np.testing.assert_array_equal(result, [[1, 3]] * 3)


def test_a_part_with_nothing_given_begins_at_the_graphs_inputs(model: onnx.ModelProto) -> None:
    part = Subgraphs(model).part("linear", {})
    assert [value.name for value in part.graph.input] == ["x"]
    assert sorted(tensor.name for tensor in part.graph.initializer) == ["b", "w"]


def test_sizes_are_dynamic_but_the_last_and_ones(model: onnx.ModelProto) -> None:
    part = Subgraphs(model).part("normed", {"sum": (1, 7, 2)})
    first, second, last = part.graph.input[0].type.tensor_type.shape.dim
    assert (first.dim_value, second.dim_param, last.dim_value) == (1, "axis_1", 2)


def test_a_value_that_nothing_computes_is_refused(model: onnx.ModelProto) -> None:
    del model.graph.node[0]
    with pytest.raises(DeployError, match="no node computes product"):
        Subgraphs(model).part("linear", {})
