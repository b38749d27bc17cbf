"""Tests of the search for diverging layers: in faulty and correct graphs, and in synthetic runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexp.analysis.bisect import DivergenceFinder, GraphDivergence, apart, bisect, divergences
from qexp.analysis.subgraphs import GraphLayer, layers_of
from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes.onnxruntime.engine import as_written
from qexp.errors import DeployError, StoreError
from qexp.execution.job import Job
from qexp.records.record import Record, read_all, records_folder
from tests.conftest import compose
from tests.support.graph_faults import (
    FAULTS,
    Editor,
    gamma_off_by_a_percent,
    quantized_twice,
    query_and_value_swapped,
    with_fault,
)


def run(outputs: Path, model: Path, *words: str) -> Record:
    """A run that is exported; its own gate, which is told apart here, may well stop at such small logits."""
    more = (
        "task=mrpc", "deploy=onnx", "data=sample", "budget=smoke", "machine.progress=false",
        "machine.threads=1", f"model.name={model}",
    )  # fmt: skip
    before = {each.key for each in read_all(records_folder(outputs))[0]} if outputs.is_dir() else set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QEXP_OUTPUTS", str(outputs))
        Job(compose(*more, *words), sweep=False).run()
    (record,) = (each for each in read_all(records_folder(outputs))[0] if each.key not in before)
    return record


@pytest.fixture(scope="module")
def outputs_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("all") / "outputs"


@pytest.fixture(scope="module")
def finished(tiny_models: Callable[[str], Path], outputs_of_all: Path) -> tuple[Record, Path]:
    """A run with W8A8 at the inputs of products, and its outputs."""
    return run(outputs_of_all, tiny_models("bert"), "quant=w8a8", "method=ptq"), outputs_of_all


@pytest.fixture(scope="module")
def sound(finished: tuple[Record, Path]) -> DivergenceFinder:
    """Of that run."""
    return DivergenceFinder.of(*finished)


@pytest.mark.parametrize("runtime", [None, "onnxruntime"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_named_by_its_module(
    sound: DivergenceFinder, fault: Callable[[Editor], None], runtime: str | None
) -> None:
    if fault is quantized_twice and runtime == "onnxruntime":
        pytest.skip("ONNX Runtime makes one pair of two in a row, and so mends this")
    result = [each.module for each in sound.layers(with_fault(sound.graph, fault), runtime)]
    if fault is query_and_value_swapped:
        assert result.pop() == FAULTS[fault].replace("query", "value")
    assert result == [FAULTS[fault]]


def scales(graph: onnx.ModelProto) -> dict[str, str]:
    """Nodes whose second input is a scale, or a factor of each channel, and the module that uses it."""
    result = {}
    for node in graph.graph.node:
        if node.op_type == "LayerNormalization":
            result[node.name] = node.name.rpartition("/")[0]
        elif node.op_type == "DequantizeLinear":
            site = node.name.removeprefix("quantization.by_name.").partition(":")[0].replace("/", ".")
            result[node.name] = site.partition(".parametrizations")[0]
    return result


def test_a_wrong_scale_is_named_wherever_it_is(sound: DivergenceFinder) -> None:
    sites = scales(sound.graph)
    assert len(sites) == 18 + 14 + 5  # activations, weights, norms
    for name, module in sites.items():
        edit = Editor.of(sound.graph)
        # Scores of a random model are so small that softmax hardly tells a query from one 1 % larger.
        factor = 1.05 if name.rpartition("/")[0].endswith(("matmul/query", "matmul/key")) else 1.01
        edit.change(edit.node(name), 1, lambda scale, factor=factor: scale * factor)
        assert [each.module for each in sound.layers(edit.model, None)][:1] == [module], name


@pytest.mark.parametrize("runtime", [None, "onnxruntime", "openvino"])
def test_a_sound_graph_names_nothing(sound: DivergenceFinder, runtime: str | None) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    assert len(sound.known(sound.graph)) == 27
    assert sound.layers(sound.graph, runtime) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("quant=w4a8", "method=ptq"),
        ("quant=w8a8", "method=ptq", "placement=qdqbert"),
        ("quant=w4a8", "method=ptq", "placement=qdqbert"),
        ("quant=w8a8", "method=ptq", "placement=aimet"),
        ("quant=w4a8", "method=ptq", "placement=aimet"),
        ("quant=fp32",),
    ],
    ids=" ".join,
)
def test_sound_graphs_of_every_form_name_nothing(
    finished: tuple[Record, Path], tiny_bert: Path, words: tuple[str, ...]
) -> None:
    _, outputs = finished  # where weights and tokens lie already
    reference = DivergenceFinder.of(run(outputs, tiny_bert, *words), outputs)
    assert len(reference.known(reference.graph)) >= 24
    for runtime in (None, "onnxruntime", *(["openvino"] if find_spec("openvino") else [])):
        assert reference.layers(reference.graph, runtime) == []


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["roberta", "electra", "distilbert"])
def test_sound_graphs_of_other_encoders_name_nothing(
    tiny_models: Callable[[str], Path], outputs: Path, architecture: str
) -> None:
    reference = DivergenceFinder.of(
        run(outputs, tiny_models(architecture), "quant=w8a8", "method=ptq"), outputs
    )
    assert len(reference.known(reference.graph)) >= 20
    assert reference.layers(reference.graph, None) == []
    assert reference.layers(reference.graph, "onnxruntime") == []


def test_noise_is_far_below_what_counts(sound: DivergenceFinder) -> None:
    measured = sound.measured(sound.graph, None, sound.known(sound.graph))
    assert max(each.typical for each in measured.values()) < 1e-5
    assert max(each.far for each in measured.values()) == 0


def test_most_rows_are_padded(sound: DivergenceFinder) -> None:
    lengths = sound.batch["attention_mask"].sum(axis=1)
    assert len(lengths) == 8
    assert len(set(lengths.tolist())) >= 6


def test_a_sound_run_agrees_in_words(finished: tuple[Record, Path]) -> None:
    (result,) = divergences(*finished, ["onnxruntime"])
    assert not result.diverges
    assert "all layers agree with torch (27, each on torch's own inputs" in str(result)


def test_a_fault_of_the_file_is_told_as_one(sound: DivergenceFinder) -> None:
    result = sound.departure("key", with_fault(sound.graph, gamma_off_by_a_percent), "onnxruntime")
    assert str(result).startswith("key onnxruntime: bert.encoder.layer.1.output.LayerNorm by 0.00")
    assert "the exported file does too" in str(result)


class Spoilt:
    """ONNX Runtime, but for what is done to its outputs."""

    def __init__(self, order: EngineSpec, spoil: Callable[[onnx.ModelProto, Any], Any]) -> None:
        self._session, self._graph, self._spoil = as_written(order), onnx.load(order.graph), spoil
        self.inputs, self.info = self._session.inputs, self._session.info

    def run(self, batch: Mapping[str, Any]) -> Any:
        return self._spoil(self._graph, self._session.run(batch))


def spoil(monkeypatch: pytest.MonkeyPatch, how: Callable[[onnx.ModelProto, Any], Any]) -> None:
    monkeypatch.setattr("qexp.deploy.runtimes.load", lambda _, order: Spoilt(order, how))


def test_a_fault_of_the_runtime_is_told_as_one(
    sound: DivergenceFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_norms(graph: onnx.ModelProto, values: Any) -> Any:
        return values * (1.01 if "LayerNorm" in graph.graph.node[-1].name else 1)

    spoil(monkeypatch, in_norms)
    result = sound.departure("key", sound.graph, "with norms of its own")
    assert [each.module.rpartition(".")[2] for each in result.layers] == ["LayerNorm"] * 5
    assert str(result).count("LayerNorm by ") == 5
    assert "at the first of them, the exported file does not: the runtime" in str(result)


def test_five_layers_are_named_and_the_others_counted(
    sound: DivergenceFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda _, values: values * np.nan)
    message = str(sound.departure("key", sound.graph, "without numbers"))
    assert message.count(" by inf") == 5
    assert "and 22 more depart" in message


def test_what_only_the_whole_graph_shows_is_bisected(
    sound: DivergenceFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda graph, values: values * (1.5 if len(graph.graph.node) > 60 else 1))
    result = sound.departure("key", sound.graph, "bad at large graphs")
    assert result.diverges
    assert result.layers == []
    assert result.whole is not None
    assert result.whole.module.startswith("bert.encoder.layer.")
    assert "each layer alone agrees with torch" in str(result)
    assert "the exported file does not: the runtime" in str(result)


@given(count=st.integers(1, 40), data=st.data())
def test_the_first_layer_up_to_which_a_graph_departs_is_found(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, count))  # count: none departs
    layers = [GraphLayer(f"layer.{index}", f"value_{index}") for index in range(count)]
    torch = {layer.module: np.ones(4, np.float32) for layer in layers}
    asked = []

    def engine(layer: GraphLayer) -> np.ndarray[Any, Any]:
        asked.append(layer)
        index = layers.index(layer)
        return np.full(4, 1.001 if index < first else 1.5, np.float32)

    result = bisect(layers, torch, engine, lambda layer: np.ones(4, np.float32))
    assert result == (None if first == count else GraphDivergence(f"layer.{first}", pytest.approx(0.5), 0.0))
    assert len(asked) <= 3 + np.log2(count)


def test_what_is_no_number_is_infinitely_apart() -> None:
    ones = np.ones(3, np.float32)
    assert apart(ones * np.nan, ones) == float("inf")
    assert apart(ones, ones) == 0.0
    assert apart(np.zeros(3, np.float32), np.zeros(3, np.float32)) == 0.0
    assert apart(ones, np.zeros(3, np.float32)) == float("inf")


def test_a_run_without_an_export_says_so(finished: tuple[Record, Path]) -> None:
    record, outputs = finished
    without = replace(record, stages=[each for each in record.stages if each["stage"] != "7-onnx"])
    with pytest.raises(StoreError, match="has no 7-onnx"):
        divergences(without, outputs, ["onnxruntime"])


def test_a_graph_without_names_of_modules_is_refused(sound: DivergenceFinder) -> None:
    edit = Editor.of(sound.graph)
    for node in edit.model.graph.node:
        node.name = ""
    assert layers_of(edit.model) == []
    with pytest.raises(DeployError, match="no node is named by a module"):
        sound.layers(edit.model, None)


def test_a_translator_is_refused(
    finished: tuple[Record, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qexp.analysis.bisect.folder_of", lambda *_: tmp_path)  # as of one: no model.onnx
    with pytest.raises(DeployError, match="--bisect takes encoders"):
        DivergenceFinder.of(*finished)
