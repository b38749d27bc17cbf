"""Real engines, built without a device; skipped where ``make rtx`` has not run."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
import torch

from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes import load
from qexp.deploy.runtimes.capabilities import check_graph
from qexp.deploy.runtimes.tensorrt import engine_rtx as runtime
from qexp.errors import DeployError
from tests.support.graphs import Exported, export

SYMMETRIC = ("quant=w8a8", "scheme=symmetric")


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="not installed; make rtx")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return export(tmp_path_factory.mktemp("plain"))


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    "placement",
    ["gemm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("aimet", "bondarenko", "qdqbert"))],
)
def test_quantized_graphs_are_built(placement, tmp_path):
    case = export(tmp_path, *SYMMETRIC, f"placement={placement}")
    engine = runtime.build(EngineSpec(case.path, "int8", 1, shapes=((4, 16), (8, 40))), ("8.9",))
    nodes = [node.op_type for node in onnx.load(case.path).graph.node]
    assert len(engine.plan) > 100_000
    assert engine.kinds["QUANTIZE"] == nodes.count("QuantizeLinear")
    assert engine.kinds["MATRIX_MULTIPLY"] == nodes.count("MatMul") + nodes.count("Gemm")
    assert (
        "opt" in engine.command and "input_ids:8x40" in engine.command and "Capabilities=89" in engine.command
    )


@pytest.mark.usefixtures("rtx")
def test_float_graphs_are_built_in_every_precision_and_kept(plain: Exported, tmp_path):
    sizes = {}
    for precision in ("fp32", "fp16", "bf16"):
        spec = EngineSpec(plain.path, precision, 1, shapes=((4, 16),), cache=tmp_path / "engines")
        made = runtime.build(spec, ("8.6",))
        assert made.path is not None
        content = made.path.read_bytes()
        made.path.write_bytes(b"kept")
        assert runtime.build(spec, ("8.6",)).plan == b"kept"
        sizes[precision] = len(content)
        made.path.write_bytes(content)
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 3
    assert sizes["fp16"] < sizes["fp32"]


def test_refusals_say_what_to_do(rtx, plain: Exported, tmp_path):
    with pytest.raises(DeployError, match=r"compute capability 9\.0 is none of.*allowed are 7\.5, 8\.0"):
        runtime.build(EngineSpec(plain.path, "fp32", 1), ("9.0",))
    asymmetric = export(tmp_path, "quant=w8a8", "placement=gemm", "scheme=per_channel")
    with pytest.raises(DeployError, match="scheme=symmetric"):
        runtime.build(EngineSpec(asymmetric.path, "int8", 1), ("8.9",))
    foreign = onnx.load(plain.path)
    next(node for node in foreign.graph.node if node.op_type == "Tanh").op_type = "NoSuchOperator"
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(DeployError, match=r"foreign\.onnx: the ONNX parser refuses.*NoSuchOperator"):
        runtime.build(EngineSpec(tmp_path / "foreign.onnx", "fp32", 1), ("8.9",))


def test_parser_itself_refuses_what_the_table_says(rtx, tmp_path, monkeypatch):
    """Without our own check the runtime's words come, so the table is not stricter than the parser."""
    from qexp.deploy.runtimes.tensorrt import rewrite

    case = export(tmp_path, "quant=w8a8", "placement=gemm", "scheme=per_channel")
    with pytest.raises(DeployError):
        check_graph("tensorrt_rtx", onnx.load(case.path), "m.onnx")
    monkeypatch.setattr(rewrite, "check_graph", lambda *_: None)
    with pytest.raises(DeployError, match=r"Non-zero zero point is not supported"):
        runtime.build(EngineSpec(case.path, "int8", 1), ("8.9",))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_no_device_is_one_error(rtx, plain: Exported):
    with pytest.raises(DeployError, match=r"sees no NVIDIA GPU; build engines here.*qexp\[tensorrt_rtx\]"):
        load("tensorrt_rtx", EngineSpec(plain.path, "fp32", 1))


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_package_that_is_not_there_is_one_error_with_what_to_type(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeployError, match=rf"{name} is not installed; pip install 'qexp\[{name}\]'"):
        load(name, EngineSpec(Path("m.onnx"), "fp32", 1))


def test_graphs_of_8_bit_floats_would_be_built(rtx, tmp_path):
    """They are refused because no device has shown their numbers, not because the builder does."""
    case = export(tmp_path, "quant=fp8", "placement=gemm", "scheme=per_channel", "calibrator=max")
    with pytest.raises(DeployError, match="not known to give the numbers of 8-bit floats"):
        check_graph("tensorrt_rtx", onnx.load(case.path), "model.onnx")
    builder = rtx.Builder(rtx.Logger(rtx.Logger.ERROR))
    network = builder.create_network()
    parser = rtx.OnnxParser(network, rtx.Logger(rtx.Logger.ERROR))
    assert parser.parse(case.path.read_bytes()), parser.get_error(0)
    profile, settings = builder.create_optimization_profile(), builder.create_builder_config()
    for index in range(network.num_inputs):
        profile.set_shape(network.get_input(index).name, (1, 8), (4, 16), (4, 16))
    settings.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, settings) is not None
