from __future__ import annotations

import numpy as np
import onnx
import pytest

from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine
from qexp.environment import EXACT_VARIABLE
from qexp.errors import DeployError
from tests.support.qdq_graphs import SIZE, _graph, _plainly

pytestmark = pytest.mark.integer_products


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
    got = OnnxRuntimeEngine(EngineSpec(tmp_path / "m.onnx", "int8", 1)).run({"x": values})
    np.testing.assert_allclose(got, _plainly(model, values), rtol=2e-6)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x07\x12\x03abc"])
def test_damaged_file_is_refused(content, tmp_path, capfd):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(DeployError, match=r"m\.onnx.*export"):
        OnnxRuntimeEngine(EngineSpec(path, "int8", 1))
    assert capfd.readouterr() == ("", "")


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(_graph().SerializeToString()[:-100])
    with pytest.raises(DeployError, match="export"):
        OnnxRuntimeEngine(EngineSpec(path, "int8", 1))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DeployError, match=r"no\.onnx"):
        OnnxRuntimeEngine(EngineSpec(tmp_path / "no.onnx", "int8", 1))


@pytest.fixture
def session(tmp_path):
    onnx.save(_graph(), tmp_path / "m.onnx")
    return OnnxRuntimeEngine(EngineSpec(tmp_path / "m.onnx", "int8", 1))


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
