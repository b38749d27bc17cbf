"""Which stored weights cannot saturate: against a model of the instruction, and against real kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from qexp.deploy.onnx.saturation import SAFE_PAIR, cannot_saturate, largest_pairs, weight_fits
from qexp.deploy.onnx.uint8 import shift_activations
from qexp.deploy.runtimes.onnxruntime.session import new_session, products_saturate
from tests.support.graphs import export

pytestmark = pytest.mark.integer_products


def saturating_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return uint8 by int8 as ``vpmaddubsw`` and ``vpmaddwd`` compute it: pairs in 16 bits, then 32."""
    products = left[:, :, None].astype(np.int32) * right[None].astype(np.int32)
    pairs = products.reshape(len(left), -1, 2, right.shape[1]).sum(2)
    return pairs.clip(-(2**15), 2**15 - 1).sum(1)


def worst(right: np.ndarray) -> np.ndarray:
    """Return for each channel the activations with the largest and the smallest pairs."""
    return np.concatenate([(right.T > 0) * 255, (right.T < 0) * 255]).astype(np.uint8)


@given(seed=st.integers(0, 10_000), limit=st.integers(40, 127))
def test_the_rule_is_exact_for_each_channel(seed: int, limit: int) -> None:
    right = np.random.default_rng(seed).integers(-limit, limit + 1, (8, 3)).astype(np.int8)
    left, exact = worst(right), worst(right).astype(np.int32) @ right.astype(np.int32)
    found = saturating_product(left, right)
    for channel in range(3):
        own = [channel, channel + 3]  # where its pairs are the largest, and the smallest
        agrees = np.array_equal(found[own, channel], exact[own, channel])
        assert agrees == (largest_pairs(right, 0)[channel] <= SAFE_PAIR)
        assert largest_pairs(right.T, 1)[channel] == largest_pairs(right, 0)[channel]


def test_a_last_row_without_a_neighbour_is_a_pair() -> None:
    assert largest_pairs(np.array([[100], [20], [127]], np.int8), 0).tolist() == [127]
    assert largest_pairs(np.array([[-100], [20], [-127], [-2]], np.int8), 0).tolist() == [129]


def test_weights_that_are_not_rounded_have_pairs_too() -> None:
    found = largest_pairs(np.array([[0.5, -0.25], [0.75, 0.0], [-1.0, -1.5]], np.float32), 0)
    assert found.dtype == np.float32
    assert found.tolist() == [1.25, 1.5]


@pytest.mark.parametrize("shape", [(64, 16), (3, 64, 16)])
def test_an_unknown_order_takes_7_bits(shape: tuple[int, ...]) -> None:
    assert weight_fits(np.full(shape, -64, np.int8), None)
    assert not weight_fits(np.full(shape, 65, np.int8), None)
    alternating = np.resize(np.array([[127], [1]], np.int8), (64, 1)).repeat(16, 1)
    assert weight_fits(alternating, 0) and not weight_fits(alternating, None)


def largest_safe(depth: int = 64, width: int = 16) -> np.ndarray:
    """Return weights beyond 7 bits whose pairs end exactly at the limit, of either sign and mixed."""
    some = np.array([[127, 1], [64, 64], [-127, -1], [127, -127], [100, 28], [-70, -58]], np.int8)
    chosen = np.random.default_rng(0).integers(0, len(some), (depth // 2, width))
    return some[chosen].transpose(0, 2, 1).reshape(depth, width)


def integer_product(right: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", right.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["rows", right.shape[1]])],
        [numpy_helper.from_array(right, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("rows", [1, 5, 32])
@pytest.mark.parametrize("excess", [0, 1])
def test_kernels_pair_the_neighbours_that_the_rule_pairs(rows: int, excess: int) -> None:
    """A plain session: exact at the limit on every CPU, and wrong just beyond it on one without VNNI."""
    right = largest_safe()
    right[0, :], right[1, :] = 127, 1 + excess
    left = np.resize(worst(right), (rows, 64))
    left[0] = worst(right)[0]
    model = integer_product(right)
    assert cannot_saturate(model) is not bool(excess)
    result = new_session(model, exact=False).run(None, {"x": left})[0]
    exact = np.array_equal(result, left.astype(np.int32) @ right.astype(np.int32))
    assert exact is not (bool(excess) and products_saturate())


def test_neighbours_of_the_other_axis_are_no_pairs() -> None:
    right = np.tile(np.array([[127], [1]], np.int8), (32, 16))
    assert cannot_saturate(integer_product(right))
    assert not cannot_saturate(integer_product(np.ascontiguousarray(right.T)))


RECIPE = ("recipe=fast_cpu", "quant=w8a8")


@pytest.mark.parametrize(("cpu", "safe"), [("avx2", True), ("vnni", False)])
def test_graphs_made_for_a_cpu_without_vnni_cannot_saturate(cpu: str, safe: bool, tmp_path: Path) -> None:
    case = export(tmp_path, *RECIPE, f"deploy.cpu={cpu}")
    model = onnx.load(case.path)
    weights = [each for each in model.graph.initializer if each.data_type == TensorProto.INT8 and each.dims]
    largest = max(int(np.abs(numpy_helper.to_array(each).astype(int)).max()) for each in weights)
    assert largest == (63 if safe else 127)
    # Signed keys and values may saturate; the engine makes them unsigned before it asks.
    assert not cannot_saturate(model)
    assert shift_activations(model)
    assert cannot_saturate(model) is safe


def with_weight(values: np.ndarray, nodes: list[onnx.NodeProto], **attributes: int) -> onnx.ModelProto:
    """A graph of float ``x`` quantized to uint8 and a product with what ``nodes`` make of integers ``w``."""
    one, points = np.array(1, np.float32), {"z": np.array(0, np.uint8), "wz": np.array(0, np.int8)}
    stored = [
        numpy_helper.from_array(each, name) for name, each in (points | {"w": values, "one": one}).items()
    ]
    kind = "Gemm" if attributes else "MatMul"
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "one", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "one", "z"], ["left"]),
            *nodes,
            helper.make_node(kind, ["left", "right"], ["y"], **attributes),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 16])],
        stored,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def node(kind: str, *inputs: str, output: str = "right", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], **attributes)


DEQUANTIZE = node("DequantizeLinear", "w", "one", "wz")
BEFORE = node("DequantizeLinear", "w", "one", "wz", output="before")


@pytest.mark.parametrize(
    ("nodes", "values", "attributes", "safe"),
    [
        ([DEQUANTIZE], largest_safe(), {}, True),
        ([DEQUANTIZE], largest_safe().T, {"transB": 1}, True),
        ([DEQUANTIZE], largest_safe()[1:-1], {}, False),  # other neighbours
        ([BEFORE, node("Transpose", "before", perm=[1, 0])], largest_safe().T, {}, True),
        ([BEFORE, node("Reshape", "before", "shape")], largest_safe(), {}, False),
        ([BEFORE, node("Reshape", "before", "shape")], largest_safe() // 2, {}, True),
        ([BEFORE, node("Relu", "before")], np.full((64, 16), 127, np.int8), {}, True),  # in floating point
        ([DEQUANTIZE], np.full((64, 16), 255, np.uint8), {}, True),
    ],
    ids=["stored", "Gemm", "others", "Transpose", "Reshape", "Reshape 7 bits", "float", "unsigned"],
)  # fmt: skip
def test_operands_are_followed_to_their_integers(
    nodes: list[onnx.NodeProto], values: np.ndarray, attributes: dict[str, int], safe: bool
) -> None:
    assert cannot_saturate(with_weight(np.ascontiguousarray(values), nodes, **attributes)) is safe


@pytest.mark.parametrize(("kind", "safe"), [(np.int8, False), (np.uint8, True)])
def test_operands_that_the_graph_computes_are_safe_if_unsigned(kind: type, safe: bool) -> None:
    model = with_weight(
        np.array(0, kind), [
            node("QuantizeLinear", "other", "one", "w", output="integers"),
            node("DequantizeLinear", "integers", "one", "w", output="before"),
            node("Transpose", "before", perm=[1, 0]),
        ],
    )  # fmt: skip
    assert cannot_saturate(model) is safe


def test_integers_that_enter_a_graph_may_be_the_largest() -> None:
    model = with_weight(np.array(0, np.int8), [node("DequantizeLinear", "cache", "one", "wz")])
    model.graph.input.append(helper.make_tensor_value_info("cache", TensorProto.INT8, [64, 16]))
    assert not cannot_saturate(model)
    model.graph.input[-1].CopyFrom(helper.make_tensor_value_info("cache", TensorProto.UINT8, [64, 16]))
    assert cannot_saturate(model)


def test_products_of_a_runtimes_own_are_not_trusted() -> None:
    model = integer_product(largest_safe())
    assert cannot_saturate(model)
    model.graph.node[0].op_type, model.graph.node[0].domain = "MatMulIntegerToFloat", "com.microsoft"
    assert not cannot_saturate(model)


def test_weights_in_a_file_of_their_own_are_not_trusted() -> None:
    model = integer_product(largest_safe())
    (weight,) = (each for each in model.graph.initializer if each.data_type == TensorProto.INT8 and each.dims)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    assert not cannot_saturate(model)
