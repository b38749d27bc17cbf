"""Work compared with ONNX Runtime's profile of the same graph, and layers in each format of the inspector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.runtimes.onnxruntime.engine import load
from qexp.deploy.runtimes.tensorrt.audit import NOT_FOUND, audit, work
from qexp.deploy.runtimes.tensorrt.rewrite import prepared
from qexp.errors import DeployError
from tests.support.tiny_encoders import EXAMPLE, batch, encoder, quantized

NAMES = tuple(EXAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("typed", [True, False], ids=["10", "8.6"])
@pytest.mark.parametrize("integers", [True, False], ids=["int8", "fp32"])
def test_work_is_that_of_onnx_runtimes_profile(integers: bool, typed: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = quantized(encoder("bert")) if integers else encoder("bert")
    export_onnx(model, path, example=EXAMPLE)
    given = batch(NAMES, 3, 5)
    profile = load(EngineSpec(path, "int8" if integers else "fp32", 1)).audit(given)
    graph = prepared("tensorrt", EngineSpec(path, "int8" if integers else "fp32", 1), typed=typed)
    assert profile is not None
    assert sorted(macs for _, macs in work(graph, given)) == sorted(each.macs for each in profile.products)


@pytest.fixture
def two() -> ModelProto:
    """Two products: 2 x 4 x 3 x 5 and 2 x 4 x 5 x 7."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "none"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "one", "none"], ["d"], name="d"),
        helper.make_node("MatMul", ["d", "a"], ["y"], name="first"),
        helper.make_node("Relu", ["y"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "b"], ["z"], name="second"),
    ]
    stored = {"a": np.ones((3, 5)), "b": np.ones((5, 7)), "one": np.array(1.0)}
    weights = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in stored.items()]
    weights.append(onnx.numpy_helper.from_array(np.array(0, np.int8), "none"))
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", "tokens", 3])]
    made = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["rows", "tokens", 7])]
    return helper.make_model(helper.make_graph(nodes, "g", given, made, weights))


def _batch() -> dict[str, np.ndarray]:
    return {"x": np.zeros((2, 4, 3), np.float32)}


OLD = ("Format/Datatype", "Row major Int8 format", "Row major linear FP32 format")
TEN = ("Format/Datatype", "Int8", "Half")
ELEVEN = ("DataType", "Int8", "Half")


@pytest.mark.parametrize(("field", "integer", "float_"), [OLD, TEN, ELEVEN], ids=["8.6", "10", "11"])
def test_a_product_is_integer_if_its_first_operand_is(
    field: str, integer: str, float_: str, two: ModelProto
) -> None:
    layers = [
        {"Name": "reformat", "LayerType": "Reformat", "Inputs": [{field: float_}], "TacticName": ""},
        {"Name": "q", "LayerType": "kgen", "Inputs": [{field: float_}], "Metadata": "[ONNX Layer: q]"},
        {
            "Name": "__myl_Fc", "LayerType": "gemm", "TacticName": "k1",
            "Inputs": [{field: integer}, {field: integer}],
            "Metadata": "[ONNX Layer: d]\x1e[ONNX Layer: first]\x1f[ONNX Layer: relu]",
        },
        {
            "Name": "__myl_Fc2", "LayerType": "gemm", "TacticName": "k2",
            "Inputs": [{field: float_}, {field: integer}],
            "Metadata": "[ONNX Layer: second]",
        },
    ]  # fmt: skip
    result = audit(layers, two, _batch())
    assert result is not None
    assert [(each.name, each.kernel, each.macs, each.integer) for each in result.products] == [
        ("first", "gemm k1", 120, True),
        ("second", "gemm k2", 280, False),
    ]
    assert result.shape == (2, 4)
    assert result.conversions == 2
    assert result.nodes == {"gemm": 2, "Reformat": 1, "kgen": 1}
    assert result.integer_share == pytest.approx(30)


def test_a_kernel_that_names_its_operands_is_believed(two: ModelProto) -> None:
    layer = {
        "Name": "fused", "LayerType": "fusion", "TacticName": "sm80_xmma_gemm_i8i8_i8i32_f32_tn",
        "Inputs": [{"Format/Datatype": "Half"}], "Metadata": "[ONNX Layer: first][ONNX Layer: second]",
    }  # fmt: skip
    result = audit([layer], two, _batch())
    assert result is not None
    assert result.integer_share == 100


def test_without_metadata_the_name_tells_the_nodes_and_what_no_layer_names_is_float(two: ModelProto) -> None:
    layer = {"Name": "first + relu", "LayerType": "CaskGemm", "Inputs": [{"Format/Datatype": "Int8"}]}
    result = audit([layer], two, _batch())
    assert result is not None
    assert [(each.kernel, each.integer) for each in result.products] == [
        ("CaskGemm first + relu", True),
        (NOT_FOUND, False),
    ]


def test_names_alone_tell_nothing(two: ModelProto) -> None:
    assert audit(["first + relu", "second"], two, _batch()) is None


def test_a_batch_that_does_not_fit_the_graph_is_told(two: ModelProto) -> None:
    with pytest.raises(DeployError, match=r"audit: the work of a batch of \(2, 4, 9\) cannot be counted"):
        work(two, {"x": np.zeros((2, 4, 9), np.float32)})


def test_sizes_that_no_inference_knows_are_told(two: ModelProto) -> None:
    two.graph.node[3].CopyFrom(helper.make_node("NonZero", ["y"], ["n"], name="places"))
    two.graph.node.insert(4, helper.make_node("Cast", ["n"], ["c"], to=TensorProto.FLOAT))
    two.graph.node.insert(5, helper.make_node("MatMul", ["c", "unknown"], ["w"], name="third"))
    two.graph.node[6].input[0] = "y"
    stored = onnx.numpy_helper.from_array(np.ones((1, 2), np.float32), "unknown")
    two.graph.initializer.append(stored)
    with pytest.raises(DeployError, match="cannot be counted"):
        work(two, _batch())
