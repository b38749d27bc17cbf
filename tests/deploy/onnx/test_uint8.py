"""Conversion of int8 to uint8: bit-identical results at the same size."""

from __future__ import annotations

import platform

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from qexp.deploy.onnx.uint8 import SEVEN_BITS, shift_activations, shift_shared_weights, unshift_activations
from qexp.deploy.runtimes.onnxruntime import session as sessions
from qexp.deploy.runtimes.onnxruntime.session import new_session
from tests.support.qdq_graphs import SIZE, _graph, _plainly

pytestmark = pytest.mark.integer_products


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def sharing(*names: str, largest: int = 127, through_one: bool = False) -> onnx.ModelProto:
    """Two products, the second of which reads the first's weight (``w``), zero point (``zero``) or both."""
    model = _graph(products=2)
    for tensor in model.graph.initializer:
        if tensor.name in ("w0", "w1"):
            values = np.clip(numpy_helper.to_array(tensor), -largest, largest)
            values[0] *= -1  # columns of weights of one sign alone would hide a wrong zero point
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    twins = {"w1": "w0"} if "w" in names else {}
    twins |= {"w1_zero": "w0_zero"} if "zero" in names else {}
    twins |= {"wf1": "wf0"} if through_one else {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = twins.get(name, name)
    nodes = [node for node in model.graph.node if not (through_one and node.output[0] == "wf1")]
    stored = [tensor for tensor in model.graph.initializer if tensor.name not in twins]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(stored)
    onnx.checker.check_model(model, full_check=True)
    return model


SHARED = {
    "weight": sharing("w"), "zero point": sharing("zero"), "both": sharing("w", "zero"),
    "one DequantizeLinear": sharing("w", "zero", through_one=True),
    "just beyond 7 bits": sharing("w", "zero", largest=SEVEN_BITS + 1),
}  # fmt: skip
APART = {"nothing": sharing(), "7 bits": sharing("w", "zero", largest=SEVEN_BITS)}
VALUES = np.random.default_rng(1).integers(-70, 70, (5, SIZE))


@pytest.mark.parametrize("zero_point", [0, -128, 127, 3])
def test_shifted_activations_are_the_same_bits(zero_point: int) -> None:
    model = _graph(activation=np.int8, zero_point=zero_point)
    values = np.arange(-200, -200 + 7 * SIZE).reshape(7, SIZE)
    before = _plainly(model, values)
    assert shift_activations(model)
    onnx.checker.check_model(model, full_check=True)
    assert np.array_equal(_plainly(model, values), before)
    result = kinds(model)
    assert (result["w0"], result["zero.uint8"]) == (TensorProto.INT8, TensorProto.UINT8)
    assert not shift_activations(model)


def test_activations_come_back_as_they_were() -> None:
    model = _graph(activation=np.int8, zero_point=0)
    values = np.arange(-200, -200 + 7 * SIZE).reshape(7, SIZE)
    before, types = _plainly(model, values), {each.data_type for each in model.graph.initializer}
    assert not unshift_activations(model)
    assert shift_activations(model) and unshift_activations(model)
    onnx.checker.check_model(model, full_check=True)
    assert {each.data_type for each in model.graph.initializer} == types
    assert np.array_equal(_plainly(model, values), before)


@pytest.mark.parametrize("zero_point", [0, 3, 127])
def test_zero_points_other_than_the_middle_stay_unsigned(zero_point: int) -> None:
    assert not unshift_activations(_graph(activation=np.uint8, zero_point=zero_point))


def test_graph_without_int8_activations_is_left_alone() -> None:
    for activation in (np.uint8, None):
        model = _graph(activation=activation)
        before = model.SerializeToString()
        assert not shift_activations(model)
        assert model.SerializeToString() == before


@pytest.mark.parametrize("case", SHARED)
def test_shared_weights_become_unsigned_with_the_same_bits_and_size(case: str) -> None:
    model = copy(SHARED[case])
    before = _plainly(model, VALUES)
    assert shift_shared_weights(model)
    onnx.checker.check_model(model, full_check=True)
    assert np.array_equal(_plainly(model, VALUES), before)
    weights = {
        name: kind for name, kind in kinds(model).items() if name.startswith("w") and name != "weight_scale"
    }
    assert set(weights.values()) == {TensorProto.UINT8}
    assert len(model.graph.initializer) == len(SHARED[case].graph.initializer)
    assert not shift_shared_weights(model)


@pytest.mark.parametrize("case", APART)
def test_weights_of_one_product_or_of_7_bits_are_left_alone(case: str) -> None:
    before = APART[case].SerializeToString()
    assert not shift_shared_weights(APART[case])
    assert APART[case].SerializeToString() == before


def test_a_table_that_is_also_looked_up_keeps_its_integers_for_that() -> None:
    model = sharing("w", "zero")
    model.graph.node.append(onnx.helper.make_node("Gather", ["w0", "x"], ["rows"]))
    assert shift_shared_weights(model)
    result = kinds(model)
    assert (result["w0"], result["w0.uint8"]) == (TensorProto.INT8, TensorProto.UINT8)
    assert "w0_zero" not in result


@pytest.mark.parametrize("exact", [None, True], ids=["this_cpu", "exact"])
@pytest.mark.parametrize("case", [*SHARED, *APART])
def test_sessions_load_shared_weights_in_both_arithmetics(case: str, exact: bool | None) -> None:
    model = copy((SHARED | APART)[case])
    shift_activations(model)
    content = model.SerializeToString()
    result = new_session(model, exact=exact).run(None, {"x": VALUES})[0]
    np.testing.assert_allclose(result, _plainly(model, VALUES), rtol=2e-6)
    assert model.SerializeToString() == content


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="the option is one of x86")
def test_the_runtime_still_refuses_shared_weights_on_its_own() -> None:
    """What the rewriting is for; once this fails it can go."""
    for case, model in (SHARED | APART).items():
        options = sessions.onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry(sessions.EXACT, "1")
        if case in SHARED:
            with pytest.raises(Exception, match="Attempt to replace the existing tensor"):
                sessions._session(model, options)
        else:
            sessions._session(model, options)
