"""Weights in half a byte: the same results at half the size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import TensorProto

from qexp.config import MaxCalibrator, Placement, Quant, QuantizationConfig, Scheme, WeightScheme
from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.onnx.int4 import should_pack_int4, widen_weights
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine
from qexp.deploy.runtimes.onnxruntime.session import new_session
from tests.support.tiny_encoders import EXAMPLE, batch, encoder

pytestmark = pytest.mark.integer_products

WEIGHTS = ("linear.weight", "embedding.weight")


def quantized(scheme: WeightScheme, *more: Any) -> Any:
    from qexp.quant.insertion.insert import insert

    model = encoder("bert")
    quant_config = QuantizationConfig(
        placement=Placement(name="some", sites=(*WEIGHTS, *more)), scheme=Scheme(weight=scheme),
        quant=Quant(weight_bits=4, activation_bits=8),
    )  # fmt: skip
    quantization = insert(model, quant_config)
    values = {name: torch.from_numpy(value) for name, value in batch(tuple(EXAMPLE), 8, 20).items()}
    with quantization.observing(values["attention_mask"]), torch.no_grad():
        model(**values)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.export_mode()
    return model


def plainly(path: Path, values: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = new_session(path, options)
    return np.asarray(session.run(None, values)[0])


def in_openvino(path: Path, values: dict[str, np.ndarray]) -> np.ndarray:
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    compiled = openvino.Core().compile_model(str(path), "CPU", exact)
    return np.asarray(compiled(values)[0])


@pytest.mark.parametrize(
    ("scheme", "more"),
    [
        (WeightScheme(), ()),
        (WeightScheme(granularity="per_tensor", symmetric=False), ("linear.input",)),
    ],
    ids=["per channel, weights alone", "per tensor and asymmetric, with activations"],
)
def test_numbers_are_those_of_whole_bytes_and_the_file_is_smaller(
    tmp_path: Path, scheme: WeightScheme, more: tuple[str, ...]
) -> None:
    model, whole, narrow = quantized(scheme, *more), tmp_path / "whole.onnx", tmp_path / "narrow.onnx"
    export_onnx(model, whole, example=EXAMPLE)
    export_onnx(model, narrow, example=EXAMPLE, narrow=True)
    values = batch(tuple(EXAMPLE), 5, 11)
    expected = plainly(whole, values)
    np.testing.assert_array_equal(plainly(narrow, values), expected)
    tolerance = 1e-4 if not more else 0.03 * np.abs(expected).max()
    np.testing.assert_allclose(
        OnnxRuntimeEngine(EngineSpec(narrow, "int8", 1)).run(values), expected, atol=tolerance
    )
    np.testing.assert_allclose(in_openvino(narrow, values), expected, atol=tolerance)

    sizes = {path: stored_bytes(path) for path in (whole, narrow)}
    weights = sum(parameter.numel() for parameter in encoder("bert").parameters() if parameter.dim() == 2)
    assert sum(sizes[whole]) == weights
    assert sum(sizes[narrow]) == weights / 2


def stored_bytes(path: Path) -> list[int]:
    """Bytes of each matrix in a file."""
    stored = [each for each in onnx.load(path).graph.initializer if len(each.dims) == 2]
    stored = [each for each in stored if min(each.dims) > 1]  # others are scales
    assert not [each.name for each in stored if each.data_type == TensorProto.FLOAT]
    return [len(each.raw_data) for each in stored]


def test_weights_of_eight_bits_stay_whole(tmp_path: Path) -> None:
    from tests.support.tiny_encoders import quantized as by_hand

    export_onnx(by_hand(encoder("distilbert")), tmp_path / "m.onnx", example=EXAMPLE, narrow=True)
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert not [each.name for each in graph.initializer if each.data_type == TensorProto.INT4]


@pytest.mark.parametrize(
    ("words", "worth"),
    [
        ({"weight_bits": 4, "activation_bits": 32}, True),
        ({"weight_bits": 2, "activation_bits": 16}, True),
        ({"weight_bits": 8, "activation_bits": 32}, False),
        ({"weight_bits": 8, "activation_bits": 32, "embedding_bits": 4}, True),
        ({"weight_bits": 4, "activation_bits": 8}, False),
        ({"weight_bits": 4, "activation_bits": 32, "overrides": {"*": {"activation_bits": 8}}}, False),
    ],
    ids=str,
)
def test_half_bytes_are_for_what_is_multiplied_in_floating_point(words: dict[str, Any], worth: bool) -> None:
    assert should_pack_int4(Quant.model_validate(words)) is worth


def test_runtimes_without_int4_get_whole_bytes(tmp_path: Path) -> None:
    """The two files become one graph again, number for number."""
    model = quantized(WeightScheme())
    export_onnx(model, tmp_path / "whole.onnx", example=EXAMPLE)
    export_onnx(model, tmp_path / "narrow.onnx", example=EXAMPLE, narrow=True)
    whole, narrow = (onnx.load(tmp_path / f"{name}.onnx") for name in ("whole", "narrow"))
    widen_weights(narrow)
    assert not [each.name for each in narrow.graph.initializer if each.data_type == TensorProto.INT4]
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in narrow.graph.initializer}
    twins = [each for each in whole.graph.initializer if f"{each.name}.int4" in stored]
    assert len(twins) == 8  # one for each linear layer
    for each in twins:
        np.testing.assert_array_equal(stored[f"{each.name}.int4"], onnx.numpy_helper.to_array(each))
    values, only_products = batch(tuple(EXAMPLE), 5, 11), tmp_path / "wide.onnx"
    onnx.save(narrow, only_products)
    np.testing.assert_array_equal(plainly(only_products, values), plainly(tmp_path / "whole.onnx", values))
