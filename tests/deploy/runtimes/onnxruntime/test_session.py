"""Sessions of ONNX Runtime: created by one function, with exact products on every CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from qexp.deploy.engine import EngineSpec
from qexp.deploy.hardware import processor, this_host
from qexp.deploy.onnx.uint8 import shift_activations
from qexp.deploy.runtimes.onnxruntime import session as sessions
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine
from qexp.deploy.runtimes.onnxruntime.session import EXACT, new_session
from qexp.environment import EXACT_VARIABLE
from qexp.errors import DeployError
from tests.support.graphs import export
from tests.support.qdq_graphs import SIZE, _graph, _plainly

pytestmark = pytest.mark.integer_products

WORDS = {
    "asymmetric": ("quant=w8a8", "placement=gemm", "scheme=per_channel"),
    "symmetric": ("quant=w8a8", "placement=gemm", "scheme=symmetric"),
    "narrow": ("quant=w4a8", "placement=gemm", "scheme=per_channel"),
}


def product() -> onnx.ModelProto:
    """Of uint8 by int8, the largest of both, in a MatMulInteger as dynamic quantization writes it."""
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["rows", 16])],
        [numpy_helper.from_array(np.full((64, 16), 127, np.int8), "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture(params=[False, True], ids=["in_memory", "file"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path | onnx.ModelProto:
    onnx.save(product(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx" if request.param else product()


@pytest.mark.parametrize("exact", [None, True])
def test_the_largest_values_are_multiplied_exactly(
    source: Path | onnx.ModelProto, exact: bool | None
) -> None:
    result = new_session(source, exact=exact).run(None, {"x": np.full((4, 64), 255, np.uint8)})[0]
    assert np.array_equal(result, np.full((4, 16), 255 * 127 * 64))


def asked(**keywords: bool | None) -> bool:
    """Whether a session is asked for exact products."""
    options = onnxruntime.SessionOptions()
    new_session(product(), options, **keywords)
    return has_option(options)


def has_option(options: onnxruntime.SessionOptions) -> bool:
    try:
        return bool(options.get_session_config_entry(EXACT) == "1")
    except RuntimeError:  # not set
        return False


@pytest.mark.parametrize("saturates", [False, True])
def test_exact_products_are_asked_for_where_they_are_needed_or_wanted(
    saturates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(EXACT_VARIABLE, raising=False)
    monkeypatch.setattr(sessions, "products_saturate", lambda: saturates)
    assert (asked(), asked(exact=False), asked(exact=True)) == (saturates, False, True)
    for word, expected in (("1", True), ("0", saturates), ("", saturates)):
        monkeypatch.setenv(EXACT_VARIABLE, word)
        assert asked() is expected
    monkeypatch.setenv(EXACT_VARIABLE, "yes")
    with pytest.raises(DeployError, match=f"{EXACT_VARIABLE} is 'yes'; allowed are 0 and 1"):
        new_session(product())


def test_times_and_gates_of_the_forced_path_are_filed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXACT_VARIABLE, "0")
    plain = this_host(1, ("onnxruntime",))
    monkeypatch.setenv(EXACT_VARIABLE, "1")
    forced = this_host(1, ("onnxruntime",))
    assert forced.fingerprint != plain.fingerprint
    assert forced.processor == processor() == f"{plain.processor}, exact int8 products forced"


@pytest.mark.parametrize("architecture", [pytest.param("bert", marks=pytest.mark.slow), "albert"])
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each == "asymmetric" else pytest.mark.slow) for each in WORDS]
)
def test_encoders_give_what_torch_gives_in_both_arithmetics(
    name: str, architecture: str, tmp_path: Path
) -> None:
    case = export(tmp_path, *WORDS[name], architecture=architecture)
    size = case.path.stat().st_size
    for exact in (None, True):
        engine = OnnxRuntimeEngine(EngineSpec(case.path, "int8", 1), exact=exact)
        # A sum in another order may push a tie over.
        np.testing.assert_allclose(
            engine.run(case.batch), case.expected, atol=3e-4 * np.abs(case.expected).max()
        )
        result = engine.audit(case.batch)
        assert result is not None
        assert result.integer_share == 100
    assert case.path.stat().st_size == size


def test_graphs_that_cannot_saturate_keep_the_fast_products(tmp_path: Path) -> None:
    """Made for a CPU without VNNI: no option is set, and a plain session gives torch's numbers on any CPU."""
    case = export(tmp_path, "recipe=fast_cpu", "quant=w8a8", "deploy.cpu=avx2")
    spec = EngineSpec(case.path, "int8", 1)
    for exact in (None, False, True):
        engine = OnnxRuntimeEngine(spec, exact=exact)
        assert not has_option(engine._session.get_session_options())
        np.testing.assert_allclose(
            engine.run(case.batch), case.expected, atol=3e-4 * np.abs(case.expected).max()
        )
        result = engine.audit(case.batch)
        assert result is not None
        assert result.integer_share == 100


def test_graphs_that_may_saturate_get_exact_products_and_need_them(tmp_path: Path) -> None:
    case = export(tmp_path, "recipe=fast_cpu", "quant=w8a8", "deploy.cpu=vnni")
    engine = OnnxRuntimeEngine(EngineSpec(case.path, "int8", 1), exact=True)
    assert has_option(engine._session.get_session_options())
    model, values = _graph(), np.random.default_rng(1).integers(50, 70, (5, SIZE))
    expected = _plainly(model, values)
    shift_activations(model)
    plain = new_session(model, exact=False).run(None, {"x": values})[0]
    assert np.allclose(plain, expected, rtol=2e-6) is not sessions.products_saturate()
    np.testing.assert_allclose(new_session(model).run(None, {"x": values})[0], expected, rtol=2e-6)


@pytest.mark.parametrize("room", [True, False], ids=["file", "no room for a file"])
def test_a_large_graph_in_memory_leaves_no_file(
    room: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "LARGE", 1)
    monkeypatch.setattr(sessions.tempfile, "tempdir", str(tmp_path if room else tmp_path / "missing"))
    given = {"x": np.full((4, 64), 255, np.uint8)}
    expected = sessions.new_session(product(), exact=True).run(None, given)[0]
    monkeypatch.undo()
    np.testing.assert_array_equal(sessions.new_session(product(), exact=True).run(None, given)[0], expected)
    assert not list(tmp_path.iterdir())
