"""Rewrites for OpenVINO: the numbers of the graph stay what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from qexp.deploy.onnx.io import read
from qexp.deploy.runtimes.openvino.rewrites import has_mixed_tables, move_before_heads
from tests.support.graphs import export
from tests.support.rounding import plainly


@pytest.mark.parametrize("quant", ["w8a8", "w4a4"])
def test_quantizing_before_the_heads_gives_the_same_numbers(quant: str, tmp_path: Path) -> None:
    case = export(tmp_path, "placement=q8bert", "scheme=neurst", f"quant={quant}")
    model = read(case.path)
    feed = {name: values.astype(np.int64) for name, values in case.batch.items()}
    before = plainly(model, feed)
    assert has_mixed_tables(model.graph)
    assert move_before_heads(model.graph)
    onnx.checker.check_model(model, full_check=True)
    split = {node.output[0] for node in model.graph.node if node.op_type == "Transpose"}
    readers = {node.op_type for node in model.graph.node if split & set(node.input)}
    assert "QuantizeLinear" not in readers
    np.testing.assert_array_equal(plainly(model, feed), before)
    assert not move_before_heads(model.graph)


def test_a_graph_whose_tables_agree_is_left_alone(tmp_path: Path) -> None:
    case = export(tmp_path, "placement=neurst", "scheme=symmetric", "quant=w8a8")
    assert not has_mixed_tables(read(case.path).graph)
