from __future__ import annotations

from importlib import import_module
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qexp.config import RUNTIMES, RuntimeName
from qexp.deploy.runtimes.capabilities import check_graph, execution
from qexp.errors import DeployError
from tests.support.graphs import export

GPUS = ("tensorrt", "tensorrt_rtx")


def test_every_runtime_has_one_entry_and_a_loader():
    assert tuple(RUNTIMES) == get_args(RuntimeName)
    for spec in RUNTIMES.values():
        assert callable(import_module(f"qexp.deploy.runtimes.{spec.engine}").load)


@pytest.mark.parametrize(
    ("widths", "cpu", "gpu"),
    [
        ([(32, 32)], "float", "float"),
        ([(8, 8)], "integer", "integer"),
        ([(8, 32)], "stored", "simulated"),
        ([(4, 32)], "stored", "stored"),
        ([(4, 8)], "widened", "widened"),
        ([(2, 8), (8, 8)], "widened", "widened"),
        ([(4, 4)], "simulated", "simulated"),
        ([(8, 16)], "simulated", "simulated"),
        ([(8, 8), (8, 16)], "simulated", "simulated"),
        ([(8, 8), (32, 32)], "integer", "integer"),
    ],
    ids=str,
)
def test_execution_is_that_of_the_worst_part(widths, cpu, gpu):
    assert [execution(runtime, widths) for runtime in ("onnxruntime", "openvino", *GPUS)] == [
        cpu,
        cpu,
        gpu,
        gpu,
    ]


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("quant=w8a8", "placement=gemm", "scheme=symmetric"), None),
        (("quant=w8a8", "placement=gemm", "scheme=per_channel"), "scheme=symmetric"),
        (("quant=w8a8", "placement=neurst", "scheme=symmetric"), "not typed"),
        (("quant=w8a16", "placement=linear", "scheme=symmetric"), "quant=w8a8"),
    ],
    ids=str,
)
def test_graph_is_refused_with_what_to_change(words, advice, tmp_path):
    model = onnx.load(export(tmp_path, *words).path)
    for runtime in RUNTIMES:
        if advice is None or RUNTIMES[runtime].zero_points:
            check_graph(runtime, model, "m.onnx")
        else:
            with pytest.raises(DeployError, match=rf"m\.onnx: {runtime} .*{advice}"):
                check_graph(runtime, model, "m.onnx")


def test_unknown_runtime_is_named():
    with pytest.raises(DeployError, match="'tvm' is unknown; allowed are onnxruntime"):
        execution("tvm", [(8, 8)])


@pytest.mark.parametrize(
    ("attributes", "taken"), [({}, False), ({"output_dtype": TensorProto.INT8}, True)], ids=str
)
@pytest.mark.parametrize("runtime", GPUS)
def test_a_quantizer_without_a_zero_point_is_unsigned(attributes, taken, runtime):
    """ONNX's default; TensorRT for RTX 1.7 reads it as INT8 and loses the upper half, without a word."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], name="quantize", **attributes),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"], name="dequantize"),
    ]
    stored = [numpy_helper.from_array(np.array(0.1, np.float32), "s")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    if taken:
        check_graph(runtime, model, "m.onnx")
    else:
        with pytest.raises(DeployError, match=r"2 of this graph's grids are unsigned.*first at quantize"):
            check_graph(runtime, model, "m.onnx")
