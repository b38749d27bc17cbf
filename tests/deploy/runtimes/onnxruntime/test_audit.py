"""Audits of graphs with known products, and of the kernels that ONNX Runtime is known to select."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.runtimes.onnxruntime.audit import PRODUCTS, audit
from qexp.deploy.runtimes.onnxruntime.engine import audited, load
from qexp.errors import DeployError
from tests.support.audits import INNER, LINEARS, OUTPUTS, ROWS, TOKENS, TOTAL, WIDTH
from tests.support.tiny_encoders import EXAMPLE, batch, encoder, quantized


def _audit(model, path):
    export_onnx(model, path, example=EXAMPLE)
    engine = load(EngineSpec(path, "int8", 1))
    return engine, engine.audit(batch(engine.inputs, ROWS, TOKENS))


def test_fp32_is_all_there_and_nothing_in_integers(tmp_path):
    engine, result = _audit(encoder("bert"), tmp_path / "m.onnx")
    assert result.shape == (ROWS, TOKENS)
    assert sum(each.macs for each in result.products) == TOTAL
    assert result.integer_share == 0
    assert result.in_float[0].macs == ROWS * TOKENS * WIDTH * INNER
    assert "QuantizeLinear" not in result.nodes and result.nodes["LayerNormalization"] == 3
    assert engine.run(batch(engine.inputs, 1, 4)).shape == (1, OUTPUTS)


def test_w8a8_linear_layers_are_integer_and_attention_is_not(tmp_path):
    _, result = _audit(quantized(encoder("bert")), tmp_path / "m.onnx")
    integer = [each for each in result.products if each.integer]
    assert {each.kernel for each in integer} <= {"MatMulIntegerToFloat", "QGemm", "QLinearMatMul"}
    assert sum(each.macs for each in result.products) == TOTAL
    assert sum(each.macs for each in integer) >= ROWS * TOKENS * LINEARS
    assert result.integer_share == pytest.approx(100 * sum(each.macs for each in integer) / TOTAL)
    assert any("attention.self" in each.name for each in result.in_float)
    assert result.conversions >= 4


def test_w4a32_is_simulated(tmp_path):
    model = quantized(encoder("bert"), weight_bits=4, activation_bits=16)
    _, result = _audit(model, tmp_path / "m.onnx")
    assert result.integer_share == 0


def test_batch_with_a_wrong_input_is_refused(tmp_path):
    export_onnx(encoder("bert"), tmp_path / "m.onnx", example=EXAMPLE)
    with pytest.raises(DeployError, match="leave out"):
        load(EngineSpec(tmp_path / "m.onnx", "fp32", 1)).audit({"y": np.zeros((1, 2), np.int64)})


def _one(operator, inputs, attributes, domain=""):
    """A graph of one node on float inputs."""
    names = [f"x{index}" for index in range(len(inputs))]
    node = helper.make_node(operator, names, ["y"], name="the_node", domain=domain, **attributes)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(names, inputs, strict=True)
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", values, [out])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


ONES = [
    ("MatMul", [(2, 3, 4), (4, 5)], {}, "", 2 * 3 * 4 * 5),
    ("MatMul", [(2, 7, 3, 4), (2, 7, 4, 6)], {}, "", 2 * 7 * 3 * 4 * 6),
    ("Gemm", [(4, 3), (4, 5)], {"transA": 1}, "", 3 * 4 * 5),
    ("Gemm", [(3, 4), (5, 4)], {"transB": 1}, "", 3 * 4 * 5),
    ("FusedMatMul", [(2, 4, 3), (2, 4, 5)], {"transA": 1}, "com.microsoft", 2 * 3 * 4 * 5),
    (
        "MultiHeadAttention", [(2, 6, 8), (2, 9, 8), (2, 9, 8)], {"num_heads": 2}, "com.microsoft",
        2 * 2 * 6 * 9 * 8,
    ),
    (
        "Attention", [(2, 6, 10), (10, 24), (24,)], {"num_heads": 2}, "com.microsoft",
        2 * 6 * 10 * 24 + 2 * 2 * 6 * 6 * 8,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "shapes", "attributes", "domain", "macs"), ONES)
def test_work_of_one_node(operator, shapes, attributes, domain, macs, tmp_path):
    onnx.save(_one(operator, shapes, attributes, domain), tmp_path / "m.onnx")
    feed = {f"x{index}": np.ones(shape, np.float32) for index, shape in enumerate(shapes)}
    result = audited(tmp_path / "m.onnx", onnxruntime.SessionOptions(), feed)
    assert sum(each.macs for each in result.products) == macs
    assert result.integer_share == 0
    assert {each.name.partition(":")[0] for each in result.products} == {"the_node"}


def test_dynamic_quantization_multiplies_integers(tmp_path):
    weight = numpy_helper.from_array(np.ones((4, 5), np.int8), "w")
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x0"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    inputs = [helper.make_tensor_value_info("x0", TensorProto.FLOAT, (2, 4))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 5))]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    result = audited(tmp_path / "m.onnx", onnxruntime.SessionOptions(), {"x0": np.ones((2, 4), np.float32)})
    assert result.integer_share == 100
    assert sum(each.macs for each in result.products) == prod((2, 4, 5))
    assert result.conversions == 2


@pytest.mark.parametrize(("level", "integer"), [(0, False), (1, False), (4, True)])
def test_four_bit_weights_are_integer_at_the_level_that_quantizes_activations(level, integer):
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], "n", accuracy_level=level)
    graph = helper.make_graph([node], "g", [], [])
    event = {
        "cat": "Node", "name": "n_kernel_time",
        "args": {
            "op_name": "MatMulNBits",
            "input_type_shape": [{"float": [2, 4]}, {"uint8": [5, 1, 2]}, {"float": [5]}],
            "output_type_shape": [{"float": [2, 5]}],
        },
    }  # fmt: skip
    result = audit(helper.make_model(graph), [event, {"cat": "Session", "name": "run"}], (2, 4))
    assert [(each.macs, each.integer) for each in result.products] == [(40, integer)]


def test_projections_of_quantized_attention_alone_are_integer():
    event = {
        "cat": "Node", "name": "a_kernel_time",
        "args": {
            "op_name": "QAttention",
            "input_type_shape": [{"uint8": [2, 6, 10]}],
            "output_type_shape": [{"float": [2, 6, 8]}],
        },
    }  # fmt: skip
    result = audit(helper.make_model(helper.make_graph([], "g", [], [])), [event], (2, 6))
    assert [each.macs for each in result.products if each.integer] == [2 * 6 * 10 * 24]
    assert sum(each.macs for each in result.in_float) == 2 * 2 * 6 * 6 * 8
    assert set(PRODUCTS) >= {"MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul"}
