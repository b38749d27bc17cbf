"""Errors before an ONNX file is written, and when it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from qexp.deploy.onnx import io
from qexp.deploy.onnx.io import checked, read, write
from qexp.errors import DeployError


def graph(operator: str = "Mul", opset: int = 20) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
    nodes = [helper.make_node(operator, ["x", "factor"], ["y"])]
    factor = numpy_helper.from_array(np.ones(4, np.float32), "factor")
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], [factor])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    proto = checked(ir.from_proto(graph()))
    write(proto, tmp_path / "g.onnx")
    assert read(tmp_path / "g.onnx") == proto
    assert [file.name for file in tmp_path.iterdir()] == ["g.onnx"]


@pytest.mark.parametrize("content", [b"", b"no graph", b"\xff" * 100])
def test_what_is_no_graph_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(DeployError, match=r"broken\.onnx: cannot be read as ONNX .*; export the model again"):
        read(path)


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(graph().SerializeToString()[:60])
    with pytest.raises(DeployError, match=r"cut\.onnx: cannot be read as ONNX"):
        read(path)


def test_what_one_file_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "MAX_BYTES", 15)
    with pytest.raises(DeployError, match="values take 16 bytes, and one ONNX file holds 15"):
        checked(ir.from_proto(graph()))


@pytest.mark.parametrize(("operator", "opset"), [("Nonsense", 20), ("Gelu", 18)])
def test_an_operator_that_the_opset_lacks_is_refused(operator: str, opset: int) -> None:
    with pytest.raises(DeployError, match=f"not valid ONNX.*{operator}.*try another opset"):
        checked(ir.from_proto(graph(operator, opset)))
