"""Export of encoder and decoder as two files, compared with torch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from qexp.deploy.engine import EngineSpec
from qexp.deploy.onnx.export_translation import DECODER, ENCODER, export_translation
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine
from qexp.errors import DeployError
from tests.support.sequence_models import MODELS, batch, build
from tests.support.tiny_translators import quantize

pytestmark = [pytest.mark.slow, pytest.mark.integer_products]

CASES = [
    pytest.param((name, quantized), id=f"{name}-{quantized}", marks=() if fast else pytest.mark.slow)
    for name in MODELS
    for quantized, fast in (("int8", name == "marian"), ("float", False))
]


@pytest.fixture(scope="module", params=CASES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    architecture, kind = request.param
    model = build(architecture)
    if kind == "int8":
        quantize(model).export_mode()
    folder = tmp_path_factory.mktemp(f"{architecture}-{kind}")
    export_translation(model, folder, example=batch())
    return SimpleNamespace(
        model=model, kind=kind, folder=folder,
        graphs={name: onnx.load(folder / name) for name in (ENCODER, DECODER)},
        encoder=OnnxRuntimeEngine(EngineSpec(folder / ENCODER, "int8", 1)),
        decoder=OnnxRuntimeEngine(EngineSpec(folder / DECODER, "int8", 1)),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(7, 7), (5, 1), (1, 6), (9, 4)], ids=str)
def test_both_files_together_give_the_logits_of_torch(exported: SimpleNamespace, shape: Any) -> None:
    source, target, expected = _torch(exported, shape)
    states = _source_states(exported, source)
    for positions in (np.arange(target.shape[1]), np.array([target.shape[1] - 1])):
        result = _decoded(exported, states, target[:, None], _empty(states), positions=positions)
        np.testing.assert_allclose(
            result["logits"], expected[:, positions], atol=_tolerance(exported, expected)
        )


def test_tokens_behind_a_cache_have_the_logits_of_all_tokens(exported: SimpleNamespace) -> None:
    """The second and the third beam go on from the row of the first; each has tokens of its own."""
    source, target, expected = _torch(exported, (7, 7))
    states = _source_states(exported, source)
    first = _decoded(exported, states, target[:, None, :4], _empty(states))
    cache = {name.replace("present", "past"): each for name, each in first.items() if name != "logits"}
    rest = np.stack([np.full_like(target[:, 4:], 5), target[:, 4:], np.full_like(target[:, 4:], 9)], axis=1)
    rows = np.repeat(np.arange(3)[:, None], 3, axis=1)
    second = _decoded(exported, states, rest, cache, rows=rows)
    logits = second["logits"].reshape(3, 3, *second["logits"].shape[1:])[:, 1]
    tolerance = _tolerance(exported, expected)
    np.testing.assert_allclose(np.hstack([first["logits"], logits]), expected, atol=tolerance)
    assert {each.shape[:1] + each.shape[2:3] for name, each in second.items() if name != "logits"} == {(9, 7)}


def _torch(exported: SimpleNamespace, shape: tuple[int, int]) -> tuple[dict[str, Any], Any, Any]:
    """Inputs of the encoder, target tokens, and the logits of torch."""
    given = batch(*shape)
    given["attention_mask"][:, 0] = 1
    source = {name: given[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = exported.model(**source, decoder_input_ids=given["decoder_input_ids"]).logits.numpy()
    return {name: each.numpy() for name, each in source.items()}, given["decoder_input_ids"].numpy(), logits


def _source_states(exported: SimpleNamespace, source: dict[str, Any]) -> dict[str, Any]:
    found = exported.encoder.run_all(source)
    assert found.pop("encoder_states").shape == (*source["input_ids"].shape, 32)
    return {**found, "attention_mask": source["attention_mask"]}


def _empty(states: dict[str, Any]) -> dict[str, Any]:
    cross = {name: each for name, each in states.items() if name.startswith("cross_")}
    return {name.replace("cross", "past"): each[:, :, :0] for name, each in cross.items()}


def _decoded(
    exported: SimpleNamespace, states: dict[str, Any], tokens: Any, cache: dict[str, Any], *,
    rows: Any = None, positions: Any = None,
) -> dict[str, Any]:  # fmt: skip
    found: dict[str, Any] = exported.decoder.run_all({
        **states, **cache, "decoder_input_ids": tokens,
        "cache_rows": np.arange(3)[:, None] if rows is None else rows,
        "positions": np.arange(tokens.shape[2]) if positions is None else positions,
    })  # fmt: skip
    return found


def _tolerance(exported: SimpleNamespace, expected: Any) -> float:
    return float((1e-4 if exported.kind == "float" else 0.03) * np.abs(expected).max())


def test_axes_have_names(exported: SimpleNamespace) -> None:
    sizes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for graph in exported.graphs.values()
        for value in (*graph.graph.input, *graph.graph.output)
    }
    layers = range(2)
    assert sizes == {
        "input_ids": ["sentences", "length"], "attention_mask": ["sentences", "length"],
        "encoder_states": ["sentences", "length", 32],
        "decoder_input_ids": ["sentences", "beams", "target_length"], "cache_rows": ["sentences", "beams"],
        "positions": ["kept"], "logits": ["rows", "kept", 50],
        **{
            f"{kind}_{part}_{layer}": [rows, 4, length, 8]
            for kind, rows, length in (
                ("cross", "sentences", "length"), ("past", "cached_rows", "past_length"),
                ("present", "rows", "present_length"),
            )
            for part in ("key", "value")
            for layer in layers
        },
    }  # fmt: skip


def test_cross_attention_projects_the_source_in_the_encoders_file_alone(exported: SimpleNamespace) -> None:
    """Of the 8 projections around attention in a decoder's layer, 2 are in the encoder's file."""
    weights = {
        name: {
            each.name
            for each in graph.graph.initializer
            if sorted(each.dims) == [32, 32] and "position" not in each.name
        }
        for name, graph in exported.graphs.items()
    }
    assert {name: len(each) for name, each in weights.items()} == {ENCODER: 2 * 4 + 2 * 2, DECODER: 2 * 6}


def test_a_tied_table_is_stored_once_in_each_file(exported: SimpleNamespace) -> None:
    kind = TensorProto.INT8 if exported.kind == "int8" else TensorProto.FLOAT
    for graph in exported.graphs.values():
        tables = [each for each in graph.graph.initializer if sorted(each.dims) == [32, 50]]
        assert [each.data_type for each in tables] == [kind]


def test_the_product_with_a_tied_table_reads_integers_directly(exported: SimpleNamespace) -> None:
    graph = exported.graphs[DECODER].graph
    (table,) = (each.name for each in graph.initializer if sorted(each.dims) == [32, 50])
    readers = [node for node in graph.node if table in node.input]
    kinds = sorted(node.op_type for node in readers)
    assert kinds == (["DequantizeLinear", "Gather"] if exported.kind == "int8" else ["Gather", "MatMul"])


def test_an_example_without_a_target_is_refused(tmp_path: Path) -> None:
    values = batch()
    del values["decoder_input_ids"]
    with pytest.raises(DeployError, match=r"add.*decoder_input_ids"):
        export_translation(build("bart"), tmp_path, example=values)
    assert not list(tmp_path.iterdir())
