"""Handmade graphs of each pattern that a runtime rewrites: the fault, and its absence after the workaround.

The first half of each test shows the fault in the installed ONNX Runtime. If a newer version fixes it, that
half fails, and the workaround and its row in docs/runtimes.md can be removed.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from qexp.deploy.onnx.decompose_qdq import dequantize_weights
from qexp.deploy.onnx.workarounds import keep_exact
from tests.support.rounding import bare, plainly

WIDTH = 32


class Graph:
    """A graph in the making, from one float input [rows, WIDTH] to one output [rows, WIDTH]."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.stored: list[TensorProto] = []

    def store(self, name: str, values: object, kind: type = np.float32) -> str:
        self.stored.append(numpy_helper.from_array(np.array(values, kind), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: int) -> str:
        self.nodes.append(
            helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", **attributes)
        )
        return output

    def pair(self, x: str, name: str, scale: float, point: int = 0, kind: type = np.uint8) -> str:
        """Quantize and dequantize."""
        grid = [self.store(f"{name}.s", scale), self.store(f"{name}.z", point, kind)]
        self.add("QuantizeLinear", [x, *grid], f"{name}.q")
        return self.add("DequantizeLinear", [f"{name}.q", *grid], name)

    def weight(self, name: str, integers: np.ndarray, scales: np.ndarray) -> str:
        """Dequantize a stored weight [in, out] with a scale for each output."""
        names = [
            self.store(f"{name}.i", integers, np.int8), self.store(f"{name}.s", scales),
            self.store(f"{name}.z", np.zeros(len(scales)), np.int8),
        ]  # fmt: skip
        return self.add("DequantizeLinear", names, name, axis=1)

    def model(self, output: str) -> ModelProto:
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH]) for name in ("x", output)
        ]
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model


def kept(model: ModelProto) -> ModelProto:
    """Apply the workarounds to a graph as the exporter does."""
    ir_model = ir.from_proto(model)
    keep_exact(ir_model.graph)
    proto = ir.to_proto(ir_model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def values(rows: int = 9, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (rows, WIDTH)).astype(np.float32)


def departure(model: ModelProto, x: np.ndarray) -> float:
    """How far a bare session is from the graph as written, in parts of the largest output."""
    expected = plainly(model, {"x": x})
    return float(np.abs(bare(model, {"x": x}) - expected).max() / np.abs(expected).max())


def written_alike(model: ModelProto, x: np.ndarray) -> bool:
    """Whether the exporter's form means the same, to the bit."""
    return np.array_equal(plainly(model, {"x": x}), plainly(kept(model), {"x": x}))


def softmax(scale: float) -> ModelProto:
    graph = Graph()
    graph.pair("x", "scores", 0.1, 128)
    graph.add("Softmax", ["scores"], "probs", axis=-1)
    return graph.model(graph.pair("probs", "y", scale))


@pytest.mark.parametrize(("scale", "wrong"), [(1 / 255, 0.003), (1 / 300.9, 0.002), (0.4, 0.2)])
def test_softmax_between_pairs(scale: float, wrong: float) -> None:
    x = values() * 4
    assert departure(softmax(scale), x) > wrong
    assert written_alike(softmax(scale), x)
    assert departure(kept(softmax(scale)), x) == 0


def test_softmax_is_left_alone_where_its_input_is_float() -> None:
    graph = Graph()
    graph.add("Softmax", ["x"], "probs", axis=-1)
    model = graph.model(graph.pair("probs", "y", 1 / 255))
    assert kept(model).graph.node == ir.to_proto(ir.from_proto(model)).graph.node


def float_weight() -> ModelProto:
    graph, generator = Graph(), np.random.default_rng(1)
    graph.pair("x", "xq", 0.05, 128)
    weight = generator.normal(0, 0.1, (WIDTH, WIDTH)) * np.geomspace(0.01, 1, WIDTH)  # unlike channels
    graph.store("w", weight)
    graph.store("b", generator.normal(0, 0.1, WIDTH))
    graph.add("Gemm", ["xq", "w", "b"], "product")
    return graph.model(graph.pair("product", "y", 0.0005, 0, np.int16))


def test_gemm_with_a_float_weight_between_pairs() -> None:
    model = float_weight()
    assert departure(model, values()) > 1e-3
    assert written_alike(model, values())
    assert departure(kept(model), values()) == 0


def tiny_channel() -> ModelProto:
    graph, generator = Graph(), np.random.default_rng(1)
    graph.pair("x", "xq", 0.05, 128)
    scales = np.full(WIDTH, 0.01, np.float32)
    scales[3] = 1e-12  # a channel of zeros, which an epsilon keeps from dividing by zero
    integers = generator.integers(-127, 128, (WIDTH, WIDTH))
    integers[:, 3] = 0
    graph.weight("w", integers, scales)
    graph.store("b", np.full(WIDTH, 5))
    graph.add("Gemm", ["xq", "w", "b"], "product")
    return graph.model(graph.pair("product", "y", 0.5, 128))


def test_gemm_with_the_bias_of_a_channel_without_weights() -> None:
    model, x = tiny_channel(), values()
    expected = plainly(model, {"x": x})
    assert np.all(expected[:, 3] == 5)
    assert np.all(np.abs(bare(model, {"x": x})[:, 3] - 5) > 4)  # 5 / (0.05 * 1e-12) is no int32
    np.testing.assert_array_equal(plainly(kept(model), {"x": x}), expected)
    np.testing.assert_array_equal(bare(kept(model), {"x": x}), expected)


def weights_alone(bits: int) -> ModelProto:
    graph, generator = Graph(), np.random.default_rng(1)
    read = "x" if bits == 32 else graph.pair("x", "xq", 0.0005, 2**15, np.uint16)
    graph.weight("w", generator.integers(-127, 128, (WIDTH, WIDTH)), generator.uniform(0.01, 0.02, WIDTH))
    graph.add("MatMul", [read, "w"], "y")
    return graph.model("y")


@pytest.mark.parametrize("bits", [16, 32])
def test_integer_weights_beside_wide_activations(bits: int) -> None:
    model, x = weights_alone(bits), values()
    assert departure(model, x) > 1e-3
    assert written_alike(model, x)
    assert departure(kept(model), x) < 1e-6


@pytest.mark.parametrize("bits", [16, 32])
def test_weights_are_written_with_the_operator_again(bits: int) -> None:
    model, x = kept(weights_alone(bits)), values()
    expected = plainly(model, {"x": x})
    assert dequantize_weights(model)
    assert [node.op_type for node in model.graph.node][-2:] == ["DequantizeLinear", "MatMul"]
    np.testing.assert_array_equal(plainly(model, {"x": x}), expected)
    assert not dequantize_weights(model)


def requantized(second: float) -> ModelProto:
    graph = Graph()
    graph.pair("x", "first", 0.05, 128)
    graph.pair("first", "next", second, 100)
    return graph.model(graph.add("Tanh", ["next"], "y"))


@pytest.mark.parametrize("second", [0.033, 0.1])
def test_two_grids_in_a_row(second: float) -> None:
    model, x = requantized(second), values()
    assert departure(model, x) > 1e-2
    assert written_alike(model, x)
    assert departure(kept(model), x) < 1e-6


def test_the_same_grid_twice_is_left_alone() -> None:
    graph = Graph()
    graph.pair("x", "first", 0.05, 128)
    graph.pair("first", "next", 0.05, 128)
    model = graph.model(graph.add("Tanh", ["next"], "y"))
    assert [node.op_type for node in kept(model).graph.node] == [node.op_type for node in model.graph.node]
    assert departure(model, values()) < 1e-6


def clipped(*, moved: bool) -> ModelProto:
    """A coarse grid, and behind it a finer one of 4 bits in 8, as it is written: with a Clip."""
    graph = Graph()
    graph.pair("x", "coarse", 1.0, 0, np.int8)
    scale = np.float32(0.3)
    bounds = [graph.store("low", -8 * scale), graph.store("high", 7 * scale)]
    if moved:
        graph.add("Transpose", ["coarse"], "turned")
    graph.add("Clip", ["turned" if moved else "coarse", *bounds], "inside")
    return graph.model(graph.pair("inside", "y", 0.3, 8))


@pytest.mark.parametrize("moved", [False, True], ids=["directly", "moved"])
def test_clip_of_what_was_dequantized_in_openvino(moved: bool) -> None:
    openvino, x = pytest.importorskip("openvino"), values()
    core = openvino.Core()

    def run(model: ModelProto) -> np.ndarray:
        read = core.read_model(model.SerializeToString())
        return core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"x": x})[0]

    model = clipped(moved=moved)
    expected = plainly(model, {"x": x})
    assert np.abs(run(model) - expected).max() > 0.29  # at least a step
    np.testing.assert_allclose(run(kept(model)), expected, atol=1e-6)


def test_products_of_integers_stay_what_they_are() -> None:
    graph, generator = Graph(), np.random.default_rng(1)
    graph.pair("x", "xq", 0.05, 128)
    graph.weight("w", generator.integers(-127, 128, (WIDTH, WIDTH)), generator.uniform(0.01, 0.02, WIDTH))
    model = graph.model(graph.add("MatMul", ["xq", "w"], "y"))
    assert [node.op_type for node in kept(model).graph.node] == [node.op_type for node in model.graph.node]
