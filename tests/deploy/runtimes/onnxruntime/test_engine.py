from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from qexp.deploy.engine import Order
from qexp.deploy.runtimes.onnxruntime.engine import Session
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.environment import EXACT_VARIABLE
from qexp.errors import DeployError

pytestmark = pytest.mark.integer_products

SIZE = 64
SCALE = np.float32(0.5)


def _graph(products: int = 1, activation: type | None = np.int8, zero_point: int = 0) -> onnx.ModelProto:
    """x int64 -> float -> (Q/DQ) -> products with stored int8 weights -> their sum."""
    generator = np.random.default_rng(0)
    stored = [numpy_helper.from_array(np.full(SIZE, 0.25, np.float32), "weight_scale")]
    nodes = [helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT)]
    if activation is not None:
        stored += [
            numpy_helper.from_array(np.array(SCALE), "scale"),
            numpy_helper.from_array(np.array(zero_point, activation), "zero"),
        ]
        nodes.append(helper.make_node("QuantizeLinear", ["float", "scale", "zero"], ["q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["read"]))
    for index in range(products):
        weight = generator.integers(100, 128, (SIZE, SIZE)).astype(np.int8)
        stored.append(numpy_helper.from_array(weight, f"w{index}"))
        stored.append(numpy_helper.from_array(np.zeros(SIZE, np.int8), f"w{index}_zero"))
        names = [f"w{index}", "weight_scale", f"w{index}_zero"]
        nodes.append(helper.make_node("DequantizeLinear", names, [f"wf{index}"], axis=1))
        read = "float" if activation is None else "read"
        nodes.append(helper.make_node("MatMul", [read, f"wf{index}"], [f"y{index}"]))
    nodes.append(helper.make_node("Sum", [f"y{index}" for index in range(products)], ["logits"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", SIZE])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", SIZE])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _plainly(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = new_session(model, options)
    return session.run(None, {"x": values})[0]


CASES = [
    *[{"products": n, "activation": np.int8} for n in (1, 3)],
    *[{"products": n, "activation": np.uint8, "zero_point": 5} for n in (1, 3)],
    {"products": 1, "activation": None},
]


@pytest.mark.parametrize("saturates", [None, True], ids=["this_cpu", "without_vnni"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_largest_values_give_the_numbers_of_the_file(case, saturates, tmp_path, monkeypatch):
    if saturates:
        monkeypatch.setenv(EXACT_VARIABLE, "1")
    model = _graph(**case)
    onnx.save(model, tmp_path / "m.onnx")
    values = np.random.default_rng(1).integers(50, 70, (5, SIZE))
    values[1] *= -1
    got = Session(Order(tmp_path / "m.onnx", "int8", 1)).run({"x": values})
    np.testing.assert_allclose(got, _plainly(model, values), rtol=2e-6)


@pytest.fixture
def session(tmp_path):
    onnx.save(_graph(), tmp_path / "m.onnx")
    return Session(Order(tmp_path / "m.onnx", "int8", 1))


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x07\x12\x03abc"])
def test_damaged_file_is_refused(content, tmp_path, capfd):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(DeployError, match=r"m\.onnx.*export"):
        Session(Order(path, "int8", 1))
    assert capfd.readouterr() == ("", "")


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(_graph().SerializeToString()[:-100])
    with pytest.raises(DeployError, match="export"):
        Session(Order(path, "int8", 1))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DeployError, match=r"no\.onnx"):
        Session(Order(tmp_path / "no.onnx", "int8", 1))


def test_missing_and_unknown_inputs_are_named(session):
    with pytest.raises(DeployError, match=r"add \['x'\], leave out \['y'\]"):
        session.run({"y": np.zeros((1, SIZE), np.int64)})


def test_shape_that_does_not_fit_is_refused(session):
    with pytest.raises(DeployError, match=r"shapes.*\(1, 3\)"):
        session.run({"x": np.zeros((1, 3), np.int64)})


def test_smaller_integers_are_taken_and_floats_are_not(session):
    assert session.run({"x": np.zeros((2, SIZE), np.int32)}).shape == (2, SIZE)
    with pytest.raises(TypeError, match="safe"):
        session.run({"x": np.zeros((2, SIZE), np.float32)})
