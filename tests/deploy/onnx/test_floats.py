"""8-bit floats in a file: engines compute what torch does, and which refuse them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import openvino
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from qexp.config import (
    MaxCalibrator,
    NumberFormat,
    Placement,
    Quant,
    QuantizationConfig,
    Scheme,
    WeightScheme,
)
from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.runtimes.capabilities import check_graph
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.deploy.runtimes.openvino.engine import OpenVinoEngine
from qexp.deploy.runtimes.torch_int8.engine import TorchInt8Engine
from qexp.errors import DeployError, QuantizationError
from qexp.quant.float_grid import float_grid
from qexp.quant.insertion.insert import insert
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode
from tests.support.graphs import written_once
from tests.support.tiny_encoders import EXAMPLE, batch, encoder

TYPES: dict[NumberFormat, int] = {"fp8_e4m3": TensorProto.FLOAT8E4M3FN, "fp8_e5m2": TensorProto.FLOAT8E5M2}
SITES: Any = (
    "linear.weight",
    "linear.input",
    "embedding.weight",
    "matmul.query",
    "matmul.key",
    "matmul.probs",
)
VALUES = (
    np.concatenate(
        [
            np.random.default_rng(0).normal(size=4082)
            * np.exp(np.random.default_rng(1).normal(size=4082) * 4),
            [
                0.0,
                -0.0,
                1e-12,
                -1e-12,
                447.9,
                464.0,
                -464.1,
                480.0,
                57344.0,
                61440.0,
                1e30,
                np.inf,
                -np.inf,
                np.nan,
            ],
        ]
    )
    .astype(np.float32)
    .reshape(-1, 32)
)
"""Values over many exponents, halfway cases at the ends, and what no format has."""


def pair_of(scale: np.float32, kind: int) -> onnx.ModelProto:
    """Return a graph of one Q/DQ pair, from ``x`` [n, 32] to ``y`` [n, 32]."""
    zero = helper.make_tensor("zero", kind, [], [0.0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 32]) for name in "xy"]
    stored = [numpy_helper.from_array(np.asarray(scale), "scale"), zero]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def quantized(number_format: NumberFormat, granularity: Any = "per_channel", bits: int = 8) -> Any:
    quantization = insert(
        encoder("bert"),
        QuantizationConfig(
            placement=Placement(name="some", sites=SITES),
            scheme=Scheme(weight=WeightScheme(granularity=granularity)),
            quant=Quant(
                weight_bits=bits,
                activation_bits=bits,
                weight_format=number_format,
                activation_format=number_format,
            ),
        ),
    )
    values = {name: torch.from_numpy(value) for name, value in batch(tuple(EXAMPLE), 8, 20).items()}
    with quantization.observing(values["attention_mask"]), torch.no_grad():
        quantization.model(**values)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.freeze()
    return quantization


def written(number_format: NumberFormat, granularity: str = "per_channel") -> tuple[Path, Any]:
    """Return the exported file, and the logits of the simulation."""

    def write(path: Path) -> dict[str, Any]:
        quantization = quantized(number_format, granularity)
        values = {name: torch.from_numpy(each) for name, each in batch(tuple(EXAMPLE), 4, 12).items()}
        with torch.no_grad():
            logits = quantization.model(**values).logits
        with quantization.export_mode():
            export_onnx(quantization.model, path, example=EXAMPLE)
        return {"logits": logits.numpy()}

    path, arrays = written_once(["floats", number_format, granularity], write)
    return path, arrays["logits"]


@pytest.mark.parametrize("number_format", TYPES)
def test_values_equal_those_of_onnx_bit_for_bit(number_format: NumberFormat) -> None:
    scale = np.float32(1.3)
    model = pair_of(scale, TYPES[number_format])
    quantizer = Quantizer("x", float_grid(number_format))
    quantizer.set_scale(torch.tensor(scale), torch.tensor(0))
    quantizer.switch(QuantizerMode.FROZEN)
    with torch.no_grad():
        ours = quantizer(torch.from_numpy(VALUES)).numpy()
    np.testing.assert_array_equal(ours, ReferenceEvaluator(model).run(None, {"x": VALUES})[0])
    theirs = new_session(model).run(None, {"x": VALUES})[0]
    np.testing.assert_array_equal(ours, theirs)
    assert (np.signbit(ours) == np.signbit(theirs)).all()


@pytest.mark.parametrize("number_format", TYPES)
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_onnx_runtime_computes_what_torch_does(number_format: NumberFormat, granularity: str) -> None:
    file, logits = written(number_format, granularity)
    model = onnx.load(file)
    kinds = [each.data_type for each in model.graph.initializer]
    assert kinds.count(TYPES[number_format]) > 10
    built = OnnxRuntimeEngine(EngineSpec(file, "int8", threads=1))
    found = built.run(batch(built.inputs, 4, 12))
    assert np.abs(found - logits).max() < 1e-5


@pytest.mark.parametrize("runtime", ["openvino", "tensorrt", "tensorrt_rtx", "torch_int8"])
def test_runtimes_without_these_floats_say_so(runtime: str) -> None:
    told = f"{runtime} is not known to give the numbers of 8-bit floats.*quant=w8a8"
    file, _ = written("fp8_e4m3")
    with pytest.raises(DeployError, match=told):
        check_graph(runtime, onnx.load(file), "model.onnx")
    engines: dict[str, Any] = {"openvino": OpenVinoEngine, "torch_int8": TorchInt8Engine}
    if runtime in engines:
        with pytest.raises(DeployError, match=told):
            engines[runtime](EngineSpec(file, "int8", threads=1))


def test_openvino_rounds_by_way_of_fp16() -> None:
    """Why it is refused: a version that fails here can be taken."""
    x = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    scale = np.float32(3.3 / 448)
    model = pair_of(scale, TensorProto.FLOAT8E4M3FN)
    core = openvino.Core()
    graph = core.read_model(model.SerializeToString())
    found = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
    steps = (x / scale).clip(-448, 448)
    once, twice = (
        each.astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * scale
        for each in (steps, steps.astype(np.float16))
    )
    assert (found == twice).all()
    assert 0.002 < float((found != once).mean()) < 0.01


@pytest.mark.parametrize(("number_format", "bits"), [("mxfp8", 8), ("nvfp4", 4)])
def test_blocks_of_floats_are_not_exported(number_format: Any, bits: int) -> None:
    with pytest.raises(QuantizationError, match=f"is on {number_format}, which is simulated in torch"):
        quantized(number_format, bits=bits).export_mode()
