"""Checks of exported graphs by external tools: onnx's checker and shape inference, NVIDIA's polygraphy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from tests.support.graphs import export

GRAPHS = {
    "fp32": (),
    "symmetric": ("quant=w8a8", "placement=gemm", "scheme=symmetric"),
    "asymmetric": ("quant=w8a8", "placement=gemm", "scheme=per_channel"),
}


@pytest.fixture(scope="module", params=GRAPHS)
def graph(request, tmp_path_factory) -> Path:
    return export(tmp_path_factory.mktemp("graph"), *GRAPHS[request.param]).path


def test_checker_and_strict_shape_inference_pass(graph):
    model = onnx.load(graph)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    typed = {value.name for value in inferred.graph.value_info} | {
        value.name for value in inferred.graph.output
    }
    assert {name for node in inferred.graph.node for name in node.output} <= typed


@pytest.fixture(scope="module")
def polygraphy(tmp_path_factory):
    site = tmp_path_factory.mktemp("polygraphy")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    for package in ("polygraphy", "onnx-graphsurgeon"):
        if subprocess.run([*command, package], capture_output=True, check=False).returncode:
            pytest.skip(f"the package index does not give {package}")

    def call(*words: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(site), "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
        tool = [sys.executable, str(site / "bin" / "polygraphy")]
        done = subprocess.run(  # it leaves a folder of its own where it runs
            [*tool, *words], env=environment, cwd=site, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.mark.slow
@pytest.mark.network
def test_lint_passes(graph, polygraphy, tmp_path):
    report = tmp_path / "lint.json"
    polygraphy("check", "lint", str(graph), "-o", str(report))
    assert '"level": "exception"' not in report.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.network
def test_every_operator_is_one_of_rtx(graph, polygraphy):
    pytest.importorskip("tensorrt_rtx", reason="not installed; make rtx")
    stored = onnx.load(graph).graph.initializer
    if any(each.data_type == onnx.TensorProto.UINT8 for each in stored):
        pytest.skip("unsigned activations, which it does not have")
    report = polygraphy("inspect", "capability", str(graph))
    assert "Graph is fully supported by TensorRT" in report
