"""Weights in blocks in a file: every engine computes what torch does, and what of it in integers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from qexp.config import MaxCalibrator, Placement, Quant, QuantizationConfig, Scheme, WeightScheme
from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.encodings import write_encoded
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.onnx.io import opset_of
from qexp.deploy.runtimes.capabilities import check_graph
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine, as_written
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.deploy.runtimes.openvino.engine import OpenVinoEngine
from qexp.deploy.runtimes.torch_int8.engine import TorchInt8Engine
from qexp.errors import DeployError
from qexp.quant.insertion.insert import insert
from tests.support.graphs import written_once
from tests.support.tiny_encoders import EXAMPLE, batch, encoder

pytestmark = pytest.mark.integer_products

LINEAR = ("linear.weight",)
BOTH = (*LINEAR, "linear.input")
TABLES = ("embedding.weight",)
ENGINES: tuple[Any, ...] = (as_written, OnnxRuntimeEngine, OpenVinoEngine, TorchInt8Engine)
PRODUCTS = 10
"""Products of the tiny BERT, two of them inside its attention."""


def quantized(scheme: WeightScheme, sites: Any, bits: int, activation_bits: int = 8) -> Any:
    model = encoder("bert")
    quantization = insert(
        model,
        QuantizationConfig(
            placement=Placement(name="some", sites=sites),
            scheme=Scheme(weight=scheme),
            quant=Quant(weight_bits=bits, activation_bits=activation_bits),
        ),
    )
    values = {name: torch.from_numpy(value) for name, value in batch(tuple(EXAMPLE), 8, 20).items()}
    with quantization.observing(values["attention_mask"]), torch.no_grad():
        model(**values)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.freeze()
    return quantization


def written(
    scheme: WeightScheme, sites: Any, bits: int, activation_bits: int = 8
) -> tuple[Path, NDArray[np.float32]]:
    """Return the exported file of :func:`quantized`, and the logits of the simulation."""

    def write(path: Path) -> dict[str, NDArray[np.float32]]:
        quantization = quantized(scheme, sites, bits, activation_bits)
        values = {name: torch.from_numpy(value) for name, value in batch(tuple(EXAMPLE), 5, 11).items()}
        with torch.no_grad():
            logits = quantization.model(**values).logits.numpy()
        quantization.export_mode()
        export_onnx(quantization.model, path, example=EXAMPLE)
        return {"logits": logits}

    path, arrays = written_once(["blocks", repr(scheme), sites, bits, activation_bits], write)
    return path, arrays["logits"]


def operators(model: ModelProto) -> Counter[str]:
    blocks = {each.name for node in model.graph.node for each in node.attribute} & {"block_size"}
    in_blocks = [node for node in model.graph.node if any(each.name in blocks for each in node.attribute)]
    return Counter([node.op_type for node in model.graph.node] + ["in blocks"] * len(in_blocks))


@pytest.mark.parametrize(
    ("fields", "sites", "bits", "activation_bits", "expected"),
    [
        # 6 layers of 2 blocks, 1 of 4, and a head of 2, in integers; the products of attention in floats.
        ({"group_size": 16}, BOTH, 4, 8, {"Sum": 8, "in blocks": 0, "Split": 6}),
        ({"group_size": 16, "symmetric": False}, (*BOTH, *TABLES), 4, 8, {"Sum": 8, "in blocks": 0}),
        ({"group_size": 16}, BOTH, 8, 8, {"Sum": 8, "in blocks": 0}),
        # The six MatMul of layers stay in blocks; both Gemm are folded.
        ({"group_size": 16}, LINEAR, 4, 32, {"Sum": 0, "in blocks": 6}),
        ({"group_size": 16, "symmetric": False}, (*LINEAR, *TABLES), 3, 32, {"Sum": 0, "in blocks": 6}),
        ({"group_size": 32}, (*LINEAR, *TABLES), 8, 32, {"Sum": 0, "in blocks": 0}),
        ({"group_size": 16}, BOTH, 4, 16, {"Sum": 0, "in blocks": 6}),
        pytest.param({"group_size": 16}, (*BOTH, *TABLES), 2, 8, {"Sum": 8}, marks=pytest.mark.slow),
        pytest.param({"group_size": 16}, (*LINEAR, *TABLES), 2, 32, {"in blocks": 0}, marks=pytest.mark.slow),
    ],
)
def test_engines_compute_the_simulation(
    fields: Any, sites: Any, bits: int, activation_bits: int, expected: dict[str, int]
) -> None:
    values = batch(tuple(EXAMPLE), 5, 11)
    path, logits = written(WeightScheme(**fields), sites, bits, activation_bits)
    found = operators(onnx.load(path))
    assert {name: found[name] for name in expected} == expected
    assert opset_of(onnx.load(path)) == (25 if bits == 2 else 21)
    largest = 3e-4 if activation_bits == 16 else 1e-5
    for engine in ENGINES:
        got = engine(EngineSpec(path, "int8", 1)).run(values)
        np.testing.assert_allclose(got, logits, rtol=0, atol=largest, err_msg=engine.__name__)


def test_the_audit_says_what_is_multiplied_in_integers() -> None:
    values = batch(tuple(EXAMPLE), 5, 11)
    for sites, bits, integer, total in ((BOTH, 8, 18, 20), (LINEAR, 32, 0, PRODUCTS)):
        path, _ = written(WeightScheme(group_size=16), sites, 4, bits)
        for engine in (OnnxRuntimeEngine, OpenVinoEngine, TorchInt8Engine):
            audit = engine(EngineSpec(path, "int8", 1)).audit(values)
            assert audit is not None
            assert len(audit.products) == total, engine.__name__
            assert sum(each.integer for each in audit.products) == integer, engine.__name__
    audit = OnnxRuntimeEngine(EngineSpec(path, "int8", 1)).audit(values)
    assert audit is not None
    assert audit.nodes["MatMulNBits"] == 6  # in 4 bits and floats: accuracy_level is 1


def test_one_block_for_a_row_is_written_as_a_channel() -> None:
    query = {}
    for name, size in (("blocks", 32), ("channels", None)):
        scheme = WeightScheme(group_size=size)  # type: ignore[arg-type]
        query[name] = operators(onnx.load(written(scheme, BOTH, 4)[0]))
    channels, blocks = query["channels"], query["blocks"]
    # But for the one layer with two blocks of 32 inputs.
    assert blocks - channels == {"Split": 1, "Sum": 1, "MatMul": 1, "Cast": 1} | {
        "QuantizeLinear": 1, "DequantizeLinear": 2,
    }  # fmt: skip


def test_files_hold_half_a_byte() -> None:
    model = onnx.load(written(WeightScheme(group_size=16), LINEAR, 4, 32)[0])
    stored = {each.name: each for each in model.graph.initializer}
    weights = [node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(weights) == 6
    assert {stored[name].data_type for name in weights} == {TensorProto.INT4}
    assert all(len(stored[name].raw_data) * 2 == np.prod(stored[name].dims) for name in weights)


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8])
def test_onnx_runtime_fuses_blocks_into_a_product_that_fails(kind: int) -> None:
    """Why no product with 8-bit inputs is written with ``block_size``."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constants = {
        "step": np.float32(0.03), "zero": np.uint8(128), "w": np.ones((64, 8), dtype),
        "scale": np.ones((4, 8), np.float32), "points": np.zeros((4, 8), dtype),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "points"], ["wd"], axis=0, block_size=16),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "blocks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(Fail, match="MatMulIntegerToFloat"):
        new_session(model).run(None, {"x": np.ones((2, 64), np.float32)})


def test_runtimes_without_blocks_refuse_them() -> None:
    kept, _ = written(WeightScheme(group_size=16), LINEAR, 4, 32)
    split, _ = written(WeightScheme(group_size=16), BOTH, 4)
    for runtime in ("tensorrt", "tensorrt_rtx"):
        with pytest.raises(DeployError, match=rf"{runtime} takes no weights in blocks .*group_size=null"):
            check_graph(runtime, onnx.load(kept), "kept.onnx")
        with pytest.raises(DeployError, match="zero point"):  # of activations; blocks are no obstacle
            check_graph(runtime, onnx.load(split), "split.onnx")


def test_encodings_have_no_blocks(tmp_path: Path) -> None:
    quantization = quantized(WeightScheme(group_size=16), LINEAR, 4, 32)
    quantization.export_mode()
    bits = {site.name: 4 for site in quantization.sites}
    with pytest.raises(
        DeployError, match=r"query\.weight: a weight in blocks of 16; encodings hold one range"
    ):
        write_encoded(quantization.model, tmp_path / "m.onnx", example=EXAMPLE, weight_bits=bits)
