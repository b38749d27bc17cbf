"""Export of ranges that are found at run time, against torch and onnxruntime's own quantize_dynamic."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from qexp.config import (
    ActivationScheme,
    MaxCalibrator,
    Placement,
    Quant,
    QuantizationConfig,
    Scheme,
    WeightScheme,
)
from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.runtimes.capabilities import check_graph
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine, as_written
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.errors import DeployError
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.insertion.insert import insert
from tests.support.graphs import written_once
from tests.support.tiny_models import build

pytestmark = pytest.mark.integer_products

LINEAR = Placement(name="linear", sites=("linear.weight", "linear.input", "embedding.weight"))
PRODUCTS = Placement(
    name="products",
    sites=("linear.weight", "linear.input", "matmul.query", "matmul.key", "matmul.probs", "matmul.value"),
)


def _batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 50, (3, 11), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def _exported(
    path: Path,
    activation: ActivationScheme,
    *,
    placement: Placement = LINEAR,
    weight_bits: int = 8,
    activation_bits: int = 8,
    weight: WeightScheme | None = None,
    embedding: WeightScheme | None = None,
) -> np.ndarray[Any, Any]:
    """Write a tiny model that no calibration has seen, and return its logits in torch."""
    quant = Quant(weight_bits=weight_bits, activation_bits=activation_bits)
    scheme = Scheme(weight=weight or WeightScheme(), embedding=embedding, activation=activation)
    config = QuantizationConfig(placement=placement, quant=quant, scheme=scheme)

    def write(file: Path) -> dict[str, np.ndarray[Any, Any]]:
        torch.manual_seed(0)
        model = build("bert").eval()
        quantization = insert(model, config)
        quantization.calibrate(CalibrationStatistics(), MaxCalibrator(kind="max"))
        quantization.freeze()
        with torch.no_grad():
            logits = model(**_batch()).logits.numpy()
        quantization.export_mode()
        export_onnx(model, file, example=_batch())
        return {"logits": logits}

    kept, arrays = written_once(["dynamic", repr(config)], write)
    shutil.copyfile(kept, path)
    return arrays["logits"]


def _feed(names: tuple[str, ...]) -> Mapping[str, np.ndarray[Any, Any]]:
    return {name: _batch()[name].numpy() for name in names}


TENSOR, TOKEN = ActivationScheme(dynamic="tensor"), ActivationScheme(dynamic="token", symmetric=True)
FORMS = {
    "tensor": (TENSOR, {}),
    "tensor, 4-bit weights": (TENSOR, {"weight_bits": 4}),
    "tensor, attention": (TENSOR, {"placement": PRODUCTS}),
    "tensor, symmetric": (ActivationScheme(dynamic="tensor", symmetric=True), {}),
    "token": (TOKEN, {}),
    "token, 4 bits": (TOKEN, {"weight_bits": 4, "activation_bits": 4}),
    "token, attention": (TOKEN, {"placement": PRODUCTS}),
}
"""Forms in which linear layers multiply integers."""
IN_FLOAT = {
    "token, asymmetric": (ActivationScheme(dynamic="token"), {}),
    "tensor, 6 bits": (TENSOR, {"activation_bits": 6}),
    "tensor, 16 bits": (TENSOR, {"activation_bits": 16}),
    "token, 12 bits": (TOKEN, {"activation_bits": 12}),
}
ROUNDING = 1e-5
"""Largest change of a logit by the rounding of float32 alone."""
STEP = 0.02
"""Largest change of a logit, of 0.5, where sums in another order take a few values to the next integer."""


FAST = ("tensor", "token")
"""The others are the same walk over further grids and sites."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in (*FORMS, *IN_FLOAT)],
)
def test_engines_compute_what_torch_does(name: str, tmp_path: Path) -> None:
    activation, more = (FORMS | IN_FLOAT)[name]
    logits = _exported(tmp_path / "m.onnx", activation, **more)
    spec = EngineSpec(tmp_path / "m.onnx", "int8", 1)
    for engine in (as_written(spec), OnnxRuntimeEngine(spec), OnnxRuntimeEngine(spec, exact=True)):
        np.testing.assert_allclose(engine.run(_feed(engine.inputs)), logits, rtol=0, atol=STEP)
    audit = engine.audit(_feed(engine.inputs))
    assert audit is not None
    assert audit.integer_share == 0 if name in IN_FLOAT else audit.integer_share > 90


def test_a_tensor_is_a_dynamic_quantize_linear_and_fused(tmp_path: Path) -> None:
    _exported(tmp_path / "m.onnx", TENSOR, placement=PRODUCTS)
    graph = onnx.load(tmp_path / "m.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("DynamicQuantizeLinear") > 0
    assert "QuantizeLinear" not in kinds
    engine = OnnxRuntimeEngine(EngineSpec(tmp_path / "m.onnx", "int8", 1))
    audit = engine.audit(_feed(engine.inputs))
    assert audit is not None
    kernels = {each.kernel for each in audit.products}
    assert kernels == {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm"}
    assert audit.integer_share == 100


def test_scales_of_tokens_are_behind_the_products_and_before_the_bias(tmp_path: Path) -> None:
    _exported(tmp_path / "m.onnx", TOKEN)
    graph = onnx.load(tmp_path / "m.onnx").graph
    makers = {name: node for node in graph.node for name in node.output}
    stored = {each.name for each in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    quantized = [
        node for node in products if node.input[1] in makers and makers[node.input[1]].input[0] in stored
    ]
    assert len(quantized) == 14
    for node in quantized:
        (reader,) = [each for each in graph.node if node.output[0] in each.input]
        assert makers[node.input[0]].op_type == "DequantizeLinear"
        assert (len(node.input), reader.op_type) == (2, "Mul")


def test_it_is_onnxruntimes_quantize_dynamic(tmp_path: Path) -> None:
    """With the grids of ``recipe=onnxruntime_dynamic``; its tables are uint8 with a zero point."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    torch.manual_seed(0)
    model = build("bert").eval()
    export_onnx(model, tmp_path / "fp32.onnx", example=_batch())
    quantize_dynamic(tmp_path / "fp32.onnx", tmp_path / "theirs.onnx", weight_type=QuantType.QInt8)
    tensor = WeightScheme(granularity="per_tensor")
    table = WeightScheme(granularity="per_tensor", symmetric=False)
    _exported(tmp_path / "ours.onnx", TENSOR, weight=tensor, embedding=table)
    ours, theirs = (_integers(tmp_path / f"{name}.onnx") for name in ("ours", "theirs"))
    matched = [any(np.array_equal(each, other) for other in (*ours, *(x.T for x in ours))) for each in theirs]
    assert matched == [True] * 17, "14 linear layers and 3 tables"
    sessions = [new_session(tmp_path / f"{name}.onnx") for name in ("ours", "theirs", "fp32")]
    feeds = [_feed(tuple(each.name for each in session.get_inputs())) for session in sessions]
    first, second, plain = (
        session.run(None, dict(feed))[0] for session, feed in zip(sessions, feeds, strict=True)
    )
    np.testing.assert_allclose(first, second, rtol=0, atol=ROUNDING)
    assert np.abs(first - plain).max() > 10 * ROUNDING


def _integers(path: Path) -> list[np.ndarray[Any, Any]]:
    """Return the 8-bit matrices of a file; those of uint8 less 128."""
    stored = [
        numpy_helper.to_array(each).astype(np.int16)
        - (128 if each.data_type == onnx.TensorProto.UINT8 else 0)
        for each in onnx.load(path).graph.initializer
        if each.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    ]
    return [each for each in stored if each.ndim == 2]


@pytest.mark.parametrize(
    "name", ["tensor", "token", pytest.param("token, asymmetric", marks=pytest.mark.slow)]
)
def test_openvino_computes_what_torch_does(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from qexp.deploy.runtimes.openvino.engine import OpenVinoEngine

    activation, more = (FORMS | IN_FLOAT)[name]
    logits = _exported(tmp_path / "m.onnx", activation, **more)
    engine = OpenVinoEngine(EngineSpec(tmp_path / "m.onnx", "int8", 1))
    np.testing.assert_allclose(engine.run(_feed(engine.inputs)), logits, rtol=0, atol=STEP)
    # With the products of a CPU that has VNNI: ranges of a tensor are multiplied in floating point.
    fast = OpenVinoEngine(EngineSpec(tmp_path / "m.onnx", "int8", 1), exact=False)
    audit = fast.audit(_feed(fast.inputs))
    assert audit is not None
    assert audit.integer_share > 90 if name == "token" else audit.integer_share == 0


def test_runtimes_without_the_operators_refuse(tmp_path: Path) -> None:
    from qexp.deploy.runtimes.torch_int8.engine import load

    for activation, operator in ((TOKEN, "ReduceMax"), (TENSOR, "DynamicQuantizeLinear")):
        _exported(tmp_path / "m.onnx", activation)
        with pytest.raises(DeployError, match=f"{operator}; run the graph in onnxruntime or openvino"):
            load(EngineSpec(tmp_path / "m.onnx", "int8", 1))
    for runtime in ("tensorrt", "tensorrt_rtx"):
        with pytest.raises(DeployError, match="scheme=dynamic_token"):
            check_graph(runtime, onnx.load(tmp_path / "m.onnx"), "m.onnx")
