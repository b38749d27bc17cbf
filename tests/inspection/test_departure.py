"""Bisecting an engine: on made-up layers, and on a real graph with one weight spoilt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from qexp.errors import StoreError
from qexp.inspection.departure import Layer, apart, bisect, departures
from qexp.inspection.runs import folder_of
from qexp.jobs import OK, Job
from qexp.records import Record, read_all, records_folder
from tests.conftest import compose


@given(count=st.integers(1, 40), data=st.data())
def test_the_first_layer_that_departs_is_found(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count))  # count: none departs
    layers = [Layer(f"layer.{index}", f"value_{index}") for index in range(count)]
    torch = {layer.module: np.ones(4, np.float32) for layer in layers}
    asked = []

    def engine(layer: Layer) -> np.ndarray:
        asked.append(layer)
        index = layers.index(layer)
        return np.full(4, 1.001 if index < first else 1.5, np.float32)

    found = bisect("key", "fake", layers, torch, engine, lambda layer: np.ones(4, np.float32))
    assert found.module == (None if first == count else f"layer.{first}")
    assert len(asked) <= 3 + np.log2(count)
    if found.departs:
        assert found.difference == pytest.approx(0.5)
        assert "the exported file does not" in str(found)


def test_what_is_no_number_is_infinitely_apart() -> None:
    ones = np.ones(3, np.float32)
    assert apart(ones * np.nan, ones) == float("inf")
    assert apart(ones, ones) == 0.0
    assert apart(np.zeros(3, np.float32), np.zeros(3, np.float32)) == 0.0
    assert apart(ones, np.zeros(3, np.float32)) == float("inf")


@pytest.fixture(scope="module")
def finished(tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of a run that was exported."""
    outputs = tmp_path_factory.mktemp("outputs")
    words = (
        "task=mrpc", "deploy=onnx", "data=sample", "budget=smoke", "machine.progress=false", "method=ptq",
        "machine.threads=1", f"model.name={tiny_models('bert')}",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QEXP_OUTPUTS", str(outputs))
        assert Job(compose(*words), sweep=False).run() == OK
    return outputs


def record_of(outputs: Path) -> Record:
    (record,) = read_all(records_folder(outputs))[0]
    return record


def test_a_sound_graph_agrees_everywhere(finished: Path) -> None:
    (found,) = departures(record_of(finished), finished, ["onnxruntime"])
    assert not found.departs
    assert "all layers agree" in str(found)


def test_a_spoilt_weight_is_named_by_its_module(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_of(finished)
    graph = onnx.load(folder_of(record, "7-onnx", finished) / "model.onnx")
    (bias,) = (
        each for each in graph.graph.initializer if each.name.endswith("layer.1.intermediate.dense.bias")
    )
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 10, bias.name))
    monkeypatch.setattr(onnx, "load", lambda *_, **__: graph)
    (found,) = departures(record, finished, ["onnxruntime"])
    assert found.module is not None
    assert found.module.endswith("layer.1.intermediate.dense")
    assert "the exported file does too" in str(found)


def test_a_run_without_an_export_says_so(finished: Path) -> None:
    from dataclasses import replace

    record = record_of(finished)
    without = replace(record, stages=[each for each in record.stages if each["stage"] != "7-onnx"])
    with pytest.raises(StoreError, match="has no 7-onnx"):
        departures(without, finished, ["onnxruntime"])
