"""FP16 graphs: the same results within the precision of FP16, in the runtimes that load them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.onnx.fp16 import to_fp16
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.errors import DeployError
from tests.support.tiny_encoders import EXAMPLE, batch, encoder, quantized

pytestmark = pytest.mark.integer_products


def written(
    folder: Path, nodes: list[onnx.NodeProto], stored: dict[str, np.ndarray], opset: int = 20
) -> Path:
    """A graph from x to y, both [batch, 4]."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    constants = [numpy_helper.from_array(np.asarray(values), name) for name, values in stored.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, folder / "g.onnx")
    return folder / "g.onnx"


def computed(path: Path, x: np.ndarray) -> np.ndarray:
    return np.asarray(new_session(path).run(None, {"x": x})[0])


@pytest.mark.parametrize("architecture", ["bert", pytest.param("distilbert", marks=pytest.mark.slow)])
def test_an_encoder_keeps_its_logits_and_its_interface(architecture: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(encoder(architecture, "eager"), path, example=EXAMPLE)
    half = to_fp16(path)
    assert half == tmp_path / "model.fp16.onnx"
    before, after = onnx.load(path).graph, onnx.load(half).graph
    assert [each.type for each in (*before.input, *before.output)] == [
        each.type for each in (*after.input, *after.output)
    ]
    kinds = {each.data_type for each in after.initializer if len(each.dims) == 2 and each.dims[0] > 1}
    assert kinds == {TensorProto.FLOAT16}
    whole, session = (
        OnnxRuntimeEngine(EngineSpec(path, "fp32", 1)),
        OnnxRuntimeEngine(EngineSpec(half, "fp16", 1)),
    )
    compiled = openvino.Core().compile_model(str(half), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for rows, length in ((1, 1), (5, 38)):
        values = batch(whole.inputs, rows, length)
        expected = whole.run(values)
        for result in (session.run(values), np.asarray(compiled(values)[0])):
            np.testing.assert_allclose(result, expected, atol=0.01 * np.abs(expected).max())


def test_a_quantized_encoder_keeps_its_pairs(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(quantized(encoder("distilbert", "eager")), path, example=EXAMPLE)
    half = onnx.load(to_fp16(path))
    scales = {
        node.input[1] for node in half.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }
    kinds = {each.data_type for each in half.graph.initializer if each.name in scales}
    assert kinds == {TensorProto.FLOAT16}
    session, whole = (
        OnnxRuntimeEngine(EngineSpec(tmp_path / "model.fp16.onnx", "int8", 1)),
        OnnxRuntimeEngine(EngineSpec(path, "int8", 1)),
    )
    values = batch(whole.inputs, 5, 12)
    expected = whole.run(values)
    np.testing.assert_allclose(session.run(values), expected, atol=0.05 * np.abs(expected).max())


def test_minus_infinity_of_a_mask_stays_finite(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "mask"], ["masked"]),
        helper.make_node("Add", ["masked", "mask"], ["twice"]),
        helper.make_node("Softmax", ["twice"], ["y"], axis=-1),
    ]
    lowest = np.finfo(np.float32).min
    path = written(tmp_path, nodes, {"mask": np.array([0, 0, lowest / 4, lowest / 4], np.float32)})
    x = np.array([[1, 2, 30, 40], [-100, -100, 100, 100]], np.float32)
    result = computed(to_fp16(path), x)
    np.testing.assert_allclose(result, computed(path, x), atol=1e-3)
    everything = written(tmp_path, nodes, {"mask": np.full(4, lowest / 4, np.float32)})
    assert np.isfinite(computed(to_fp16(everything), x)).all()


def test_means_of_squares_do_not_overflow(tmp_path: Path) -> None:
    """T5's norm of values above 256, whose squares are beyond FP16."""
    nodes = [
        helper.make_node("Pow", ["x", "two"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "last"], ["mean"]),
        helper.make_node("Add", ["mean", "eps"], ["safe"]),
        helper.make_node("Sqrt", ["safe"], ["root"]),
        helper.make_node("Div", ["x", "root"], ["y"]),
    ]
    stored = {"two": np.float32(2), "last": np.array([-1]), "eps": np.float32(1e-6)}
    path = written(tmp_path, nodes, stored)
    x = np.array([[500, -3000, 40, 7]], np.float32)
    np.testing.assert_allclose(computed(to_fp16(path), x), computed(path, x), rtol=2e-3)


def test_what_becomes_an_integer_is_computed_in_full(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("Cast", ["product"], ["integer"], to=TensorProto.INT32),
        helper.make_node("Cast", ["integer"], ["y"], to=TensorProto.FLOAT),
    ]
    path = written(tmp_path, nodes, {"factor": np.float32(1.9999)})
    x = np.array([[1000, 500, 2, 4]], np.float32)
    np.testing.assert_array_equal(computed(to_fp16(path), x), computed(path, x))


@pytest.mark.parametrize(("scale", "point"), [(1e-7, np.int8(0)), (0.01, np.int16(0))])
def test_grids_that_fp16_cannot_hold_stay_in_full(tmp_path: Path, scale: float, point: np.generic) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "point"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "point"], ["y"]),
    ]
    path = written(tmp_path, nodes, {"scale": np.float32(scale), "point": point}, opset=21)
    x = np.array([[1.5, -2.5, 100.5, 0]], np.float32) * np.float32(scale)
    np.testing.assert_array_equal(computed(to_fp16(path), x), computed(path, x))


def test_what_cannot_be_halved_is_told(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    with pytest.raises(DeployError, match=r"factor: has a value of 1e.05, beyond FP16's 65504"):
        to_fp16(written(tmp_path, nodes, {"factor": np.float32(1e5)}))
    with pytest.raises(DeployError, match=r"has opset 13.*export it with a later one"):
        to_fp16(written(tmp_path, nodes, {"factor": np.float32(1)}, opset=13))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph at all")
    with pytest.raises(DeployError, match=r"broken\.onnx: cannot be read as ONNX"):
        to_fp16(broken)
    with pytest.raises(DeployError, match=r"absent\.onnx: cannot be read as ONNX"):
        to_fp16(tmp_path / "absent.onnx")
    assert not list(tmp_path.glob("*.fp16.onnx"))
