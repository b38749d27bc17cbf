from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.deploy.runtimes.tensorrt.build import Profile, Target, profiles, widest
from qexp.deploy.runtimes.tensorrt.half_precision import to_half
from qexp.deploy.runtimes.tensorrt.rewrite import dequantize_tables, prepared, to_old_opset
from qexp.errors import DeployError
from tests.support.graphs import Exported, export

pytestmark = pytest.mark.integer_products

TARGET = Target("tensorrt", "11.4", "NVIDIA L40S", "8.9", "int8", (Profile(1, 128), Profile(8, 128)))


def _run(model: onnx.ModelProto, case: Exported) -> np.ndarray:
    return new_session(model).run(None, case.batch)[0]


def test_name_of_an_engine_changes_with_everything_that_it_depends_on():
    changes = {
        "runtime": "tensorrt_rtx",
        "version": "11.5",
        "device": "NVIDIA L4",
        "capability": "8.6",
        "precision": "fp16",
        "profiles": (Profile(1, 128),),
    }
    keys = {replace(TARGET, **{field: value}).key(b"graph") for field, value in changes.items()}
    assert len(keys | {TARGET.key(b"graph"), TARGET.key(b"grapi")}) == len(changes) + 2
    assert TARGET.key(b"graph") == replace(TARGET).key(b"graph")
    # Timings serve all graphs and precisions of one device.
    assert replace(TARGET, precision="fp16").timings == TARGET.timings != replace(TARGET, device="x").timings


def test_every_shape_has_its_profile_and_every_smaller_batch_finds_one():
    spec = EngineSpec(Path("m.onnx"), "int8", 1, shapes=((8, 64), (1, 128), (32, 64), (8, 64)))
    result = profiles(spec, 512)
    assert result == (Profile(1, 128), Profile(8, 64), Profile(32, 64))
    assert next(each for each in result if each.holds(3, 60)) == Profile(8, 64)
    assert widest(result) == Profile(32, 128)
    assert profiles(EngineSpec(Path("m.onnx"), "int8", 1), 40) == (Profile(32, 40),)
    assert profiles(EngineSpec(Path("m.onnx"), "int8", 1), None) == (Profile(32, 128),)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    words = ("quant=w8a8", "placement=bondarenko", "scheme=symmetric")
    return export(tmp_path_factory.mktemp("tables"), *words)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return export(tmp_path_factory.mktemp("plain"))


def test_tables_behind_dequantize_linear_give_the_same_numbers(tables):
    model = onnx.load(tables.path)
    assert dequantize_tables(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(_run(model, tables), tables.expected, atol=1e-4)
    integers = {each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.INT8}
    lookups = [node for node in model.graph.node if node.op_type == "Gather"]
    assert not [node for node in lookups if node.input[0] in integers]
    assert not dequantize_tables(model)


@pytest.mark.parametrize("case", ["plain", "tables"])
def test_old_opset_says_the_same(case, request):
    case = request.getfixturevalue(case)
    model = onnx.load(case.path)
    try:
        to_old_opset(model, "m.onnx")
    except DeployError as error:
        pytest.fail(str(error))
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    assert "Gelu" not in {node.op_type for node in model.graph.node}
    np.testing.assert_allclose(_run(model, case), case.expected, atol=1e-4)


def test_old_opset_refuses_what_it_cannot_say(tmp_path):
    case = export(tmp_path, "quant=w8a16", "placement=linear", "scheme=symmetric")
    with pytest.raises(DeployError, match=r"m\.onnx: TensorRT 8\.6 knows opset 17.*TensorRT 10"):
        to_old_opset(onnx.load(case.path), "m.onnx")


def test_graph_in_sixteen_bits(plain, tables):
    model = onnx.load(plain.path)
    assert to_half(model, "fp16")
    onnx.checker.check_model(model, full_check=True)
    difference = np.abs(_run(model, plain) - plain.expected).max()
    assert 1e-6 < difference < 0.01 * np.abs(plain.expected).max()
    for kind in ("fp16", "bf16"):
        model = onnx.load(tables.path)
        assert to_half(model, kind)
        onnx.checker.check_model(model, full_check=True)
        assert onnx.TensorProto.FLOAT not in {each.data_type for each in model.graph.initializer}
        assert not to_half(model, kind)


def test_scale_that_would_vanish_is_named(tables):
    model = onnx.load(tables.path)
    scale = next(node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear")
    tensor = next(each for each in model.graph.initializer if each.name == scale)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(1e-9, np.float32), scale))
    with pytest.raises(DeployError, match=r"scale of 1e-09 is zero in 16-bit"):
        to_half(model, "fp16")


def test_precision_says_the_types_of_the_graph(plain):
    kinds = {
        "fp32": onnx.TensorProto.FLOAT,
        "fp16": onnx.TensorProto.FLOAT16,
        "bf16": onnx.TensorProto.BFLOAT16,
    }
    for precision, kind in kinds.items():
        model = prepared("tensorrt", EngineSpec(plain.path, precision, 1))
        assert kind in {each.data_type for each in model.graph.initializer}
    old = prepared("tensorrt", EngineSpec(plain.path, "fp16", 1), typed=False)
    assert old.opset_import[0].version == 17
