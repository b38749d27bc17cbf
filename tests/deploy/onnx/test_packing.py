"""Weights in half a byte or a quarter: the same results at a part of the size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import openvino
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from qexp.config import MaxCalibrator, Placement, Quant, QuantizationConfig, Scheme, WeightScheme
from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.onnx.io import opset_of, read
from qexp.deploy.onnx.packing import PACKED, SMALLEST, pack_weights, unpack_weights
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.deploy.runtimes.openvino.engine import OpenVinoEngine
from qexp.deploy.runtimes.torch_int8.engine import TorchInt8Engine
from tests.support.tiny_encoders import EXAMPLE, batch, encoder

pytestmark = pytest.mark.integer_products

ENGINES = (OnnxRuntimeEngine, OpenVinoEngine, TorchInt8Engine)
WEIGHTS = ("linear.weight", "embedding.weight")


def quantized(scheme: WeightScheme, *more: Any, bits: int = 4) -> Any:
    from qexp.quant.insertion.insert import insert

    model = encoder("bert")
    quant_config = QuantizationConfig(
        placement=Placement(name="some", sites=(*WEIGHTS, *more)), scheme=Scheme(weight=scheme),
        quant=Quant(weight_bits=bits, activation_bits=8),
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


def of_engine(path: Path, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {kind.__name__: kind(EngineSpec(path, "int8", 1)).run(values) for kind in ENGINES}


def operators(path: Path) -> list[str]:
    """Operators of the graph that ONNX Runtime runs, in order."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    new_session(path, options)
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


@pytest.mark.parametrize(
    ("scheme", "more", "bits"),
    [
        (WeightScheme(granularity="per_tensor", symmetric=False), ("linear.input",), 4),
        (WeightScheme(), ("linear.input",), 2),
        pytest.param(WeightScheme(), (), 4, marks=pytest.mark.slow),
        pytest.param(WeightScheme(), ("linear.input",), 3, marks=pytest.mark.slow),
        pytest.param(WeightScheme(granularity="per_tensor", symmetric=False), (), 2, marks=pytest.mark.slow),
    ],
)
def test_every_engine_computes_the_same_as_from_whole_bytes(
    tmp_path: Path, scheme: WeightScheme, more: tuple[str, ...], bits: int
) -> None:
    model = quantized(scheme, *more, bits=bits)
    whole, packed = tmp_path / "whole.onnx", tmp_path / "packed.onnx"
    export_onnx(model, whole, example=EXAMPLE, packed=False)
    export_onnx(model, packed, example=EXAMPLE)
    values = batch(tuple(EXAMPLE), 5, 11)
    np.testing.assert_array_equal(plainly(packed, values), plainly(whole, values))
    expected, found = of_engine(whole, values), of_engine(packed, values)
    assert [*found] == [*expected]
    for name, logits in expected.items():
        np.testing.assert_array_equal(found[name], logits, err_msg=name)
    assert operators(packed) == operators(whole)
    if bits > 2:  # OpenVINO reads no INT2
        np.testing.assert_array_equal(in_openvino(packed, values), in_openvino(whole, values))

    sizes = {path: stored_bytes(path) for path in (whole, packed)}
    share = 4 if bits == 2 else 2
    assert sizes[packed] == [size // share for size in sizes[whole]]
    assert opset_of(onnx.load(whole)) == 20
    assert opset_of(onnx.load(packed)) == (25 if bits == 2 else 21)


def stored_bytes(path: Path) -> list[int]:
    """Bytes of each large matrix in a file, the smallest first."""
    stored = [each for each in onnx.load(path).graph.initializer if len(each.dims) == 2]
    stored = [each for each in stored if np.prod(each.dims) >= SMALLEST]  # others are scales, or too small
    assert not [each.name for each in stored if each.data_type == TensorProto.FLOAT]
    return sorted(len(each.raw_data) for each in stored)


def test_weights_of_eight_bits_stay_whole(tmp_path: Path) -> None:
    from tests.support.tiny_encoders import quantized as by_hand

    export_onnx(by_hand(encoder("distilbert")), tmp_path / "m.onnx", example=EXAMPLE)
    model = onnx.load(tmp_path / "m.onnx")
    assert not [each.name for each in model.graph.initializer if each.data_type in PACKED]
    assert opset_of(model) == 20


def table(integers: np.ndarray) -> onnx.ModelProto:
    """A look-up and a dequantization of one table, which are two readers of it."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["w", "rows"], ["looked"]),
            helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["floats"]),
        ],
        "g",
        [helper.make_tensor_value_info("rows", TensorProto.INT64, ["n"])],
        [
            helper.make_tensor_value_info(
                "looked", helper.np_dtype_to_tensor_dtype(integers.dtype), [None, None]
            ),
            helper.make_tensor_value_info("floats", TensorProto.FLOAT, [None, None]),
        ],
        [
            numpy_helper.from_array(integers, "w"),
            numpy_helper.from_array(np.float32(0.5), "scale"),
            numpy_helper.from_array(integers.dtype.type(1), "zero"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@given(data=st.data())
def test_packing_loses_nothing(data: st.DataObject) -> None:
    """For any integers: signed or not, odd sizes, one value out of the range."""
    dtype = data.draw(st.sampled_from([np.int8, np.uint8]))
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    low, high = data.draw(st.sampled_from([(-2, 1), (-8, 7), (-9, 7), (-8, 8), (0, 3), (0, 15), (0, 16)]))
    low = max(low, np.iinfo(dtype).min)
    integers = data.draw(arrays(dtype, shape, elements=st.integers(low, high)))
    original = table(integers)
    model = ir.from_proto(original)
    pack_weights(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    packed = any(each.data_type in PACKED for each in proto.graph.initializer)
    least = 0 if dtype == np.uint8 else -8
    assert packed == (integers.size >= 256 and integers.min() >= least and integers.max() <= least + 15)
    assert unpack_weights(proto) == packed
    stored = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    assert {*stored} == {"w", "scale", "zero"}
    np.testing.assert_array_equal(stored["w"], integers)
    assert stored["w"].dtype == dtype
    assert [node.op_type for node in proto.graph.node] == ["Gather", "DequantizeLinear"]


def test_a_file_is_read_in_whole_bytes(tmp_path: Path) -> None:
    model = ir.from_proto(table(np.full((16, 16), 3, np.int8)))
    pack_weights(model)
    onnx.save(ir.to_proto(model), tmp_path / "m.onnx")
    assert {each.name for each in read(tmp_path / "m.onnx").graph.initializer} == {"w", "scale", "zero"}
