"""Audits of tiny encoders with known work, compiled by OpenVINO."""

from __future__ import annotations

import onnx
import pytest

from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.onnx.io import opset_of
from qexp.deploy.runtimes.openvino.audit import audit
from qexp.deploy.runtimes.openvino.engine import REFUSED_OPSET, OpenVinoEngine
from tests.support.audits import LINEARS, ROWS, TOKENS, TOTAL
from tests.support.tiny_encoders import EXAMPLE, batch, encoder, quantized

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install qexp[openvino]")


def _audit(model, path):
    export_onnx(model, path, example=EXAMPLE)
    # Without groups: by default activations of integer weights are quantized on the fly.
    groups = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    properties = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", **groups}
    compiled = openvino.Core().compile_model(path, "CPU", properties)
    names = tuple(port.any_name for port in compiled.inputs)
    return audit(compiled, EngineSpec(path, "int8", 1), batch(names, ROWS, TOKENS))


def test_fp32_is_all_there_and_nothing_in_integers(tmp_path):
    result = _audit(encoder("bert"), tmp_path / "m.onnx")
    assert result.shape == (ROWS, TOKENS)
    assert sum(each.macs for each in result.products) == TOTAL
    assert result.integer_share == 0
    assert all("f32" in each.kernel for each in result.products)
    assert result.nodes["Subgraph"] == 1, "attention is one layer"
    assert "Const" not in result.nodes


def test_w8a8_linear_layers_are_integer_and_attention_is_not(tmp_path):
    result = _audit(quantized(encoder("bert")), tmp_path / "m.onnx")
    integer = [each for each in result.products if each.integer]
    assert sum(each.macs for each in result.products) == TOTAL
    assert sum(each.macs for each in integer) >= ROWS * TOKENS * LINEARS
    assert 0 < result.integer_share < 100
    assert all("attention.self" in each.name for each in result.in_float)
    assert result.conversions >= 1


def test_weights_alone_are_not_integer_arithmetic(tmp_path):
    result = _audit(quantized(encoder("bert"), weight_bits=4, activation_bits=16), tmp_path / "m.onnx")
    assert result.integer_share == 0


def test_packed_weights_of_two_bits_are_audited(tmp_path):
    path = tmp_path / "m.onnx"
    export_onnx(quantized(encoder("bert"), weight_bits=2), path, example=EXAMPLE)
    engine = OpenVinoEngine(EngineSpec(path, "int8", 1))
    assert opset_of(onnx.load(path)) >= REFUSED_OPSET
    assert sum(each.macs for each in engine.audit(batch(engine.inputs, ROWS, TOKENS)).products) == TOTAL
