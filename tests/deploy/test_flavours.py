from __future__ import annotations

import onnx
import pytest

from qexp.deploy.engines import RUNTIMES
from qexp.deploy.flavours import FLAVOURS, check_graph, execution
from qexp.errors import DeployError
from tests.deploy.graphs import export

GPUS = ("tensorrt", "tensorrt_rtx")


def test_every_runtime_has_a_flavour():
    assert list(FLAVOURS) == list(RUNTIMES)


@pytest.mark.parametrize(
    ("widths", "cpu", "gpu"),
    [
        ([(32, 32)], "float", "float"),
        ([(8, 8)], "integer", "integer"),
        ([(8, 32)], "stored", "simulated"),
        ([(4, 32)], "stored", "stored"),
        ([(4, 8)], "simulated", "simulated"),
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
        if advice is None or FLAVOURS[runtime].zero_points:
            check_graph(runtime, model, "m.onnx")
        else:
            with pytest.raises(DeployError, match=rf"m\.onnx: {runtime} .*{advice}"):
                check_graph(runtime, model, "m.onnx")


def test_unknown_runtime_is_named():
    with pytest.raises(DeployError, match="'tvm' is unknown; allowed are onnxruntime"):
        execution("tvm", [(8, 8)])
