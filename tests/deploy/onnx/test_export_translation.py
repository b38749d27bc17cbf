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
    values = {name: tensor.numpy() for name, tensor in batch(*shape).items()}
    values["attention_mask"][:, 0] = 1
    source = {name: values[name] for name in ("input_ids", "attention_mask")}
    target = values["decoder_input_ids"]
    with torch.no_grad():
        given = {name: torch.from_numpy(each) for name, each in source.items()}
        expected = exported.model(**given, decoder_input_ids=torch.from_numpy(target)).logits.numpy()
    states = exported.encoder.run(source)
    tolerance = (1e-4 if exported.kind == "float" else 0.03) * np.abs(expected).max()
    for positions in (np.arange(target.shape[1]), np.array([target.shape[1] - 1])):
        result = exported.decoder.run({
            "attention_mask": source["attention_mask"], "decoder_input_ids": target,
            "encoder_states": states, "positions": positions,
        })  # fmt: skip
        np.testing.assert_allclose(result, expected[:, positions], atol=tolerance)


def test_axes_have_names(exported: SimpleNamespace) -> None:
    sizes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for graph in exported.graphs.values()
        for value in (*graph.graph.input, *graph.graph.output)
    }
    assert sizes == {
        "input_ids": ["batch", "length"], "attention_mask": ["batch", "length"],
        "encoder_states": ["batch", "length", 32], "decoder_input_ids": ["batch", "target_length"],
        "positions": ["kept"], "logits": ["batch", "kept", 50],
    }  # fmt: skip


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
