"""Sites of ONNX graphs of several exporters: their tensors hold what the quantizers of these sites see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from qexp.config import Placement, Quant, QuantizationConfig
from qexp.deploy.onnx.export import export_onnx
from qexp.deploy.onnx.tensor_sites import tensor_sites
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.quant.insertion.insert import insert
from tests.support.tiny_models import batch, build

ROWS = {**batch(), "token_type_ids": torch.zeros(3, 7, dtype=torch.int64)}
ALL = Placement(
    name="all",
    sites=(
        "linear.weight", "embedding.weight", "embedding.output", "linear.input", "linear.output",
        "matmul.query", "matmul.key", "matmul.value", "attention.scores", "matmul.probs", "attention.context",
        "residual.input", "layernorm.input", "layernorm.output", "activation.output",
    ),
)  # fmt: skip


def distinct(model: Any) -> Any:
    """A model without equal parameters, which exporters would store once under one of their names."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def by_qexp(model: Any, path: Path) -> None:
    export_onnx(model, path, example=ROWS)


def by_torchscript(model: Any, path: Path) -> None:
    axes = {name: {0: "batch", 1: "length"} for name in ROWS}
    inputs = tuple(ROWS[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    with torch.no_grad():
        torch.onnx.export(
            model, inputs, str(path), dynamo=False, opset_version=14, do_constant_folding=True,
            input_names=["input_ids", "attention_mask", "token_type_ids"], dynamic_axes=axes,
        )  # fmt: skip


def computed(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Values of intermediate tensors."""
    model = onnx.load(path)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    wanted = [name for name in names if name not in constants]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    onnx.save(model, path.with_suffix(".all.onnx"))
    session = new_session(path.with_suffix(".all.onnx"))
    feed = {each.name: ROWS[each.name].numpy() for each in session.get_inputs()}
    return constants | dict(zip(wanted, session.run(None, feed), strict=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("export", [by_torchscript, pytest.param(by_qexp, marks=pytest.mark.slow)])
@pytest.mark.parametrize("architecture", ["bert", pytest.param("electra", marks=pytest.mark.slow)])
def test_tensors_hold_the_values_of_their_sites(tmp_path: Path, architecture: str, export: Any) -> None:
    path, model = tmp_path / "m.onnx", distinct(build(architecture))
    export(model, path)
    found = {site.removeprefix("model."): chain for site, chain in tensor_sites(onnx.load(path)).items()}
    quantization = insert(model, QuantizationConfig(placement=ALL, quant=Quant()))
    with torch.no_grad(), quantization.observing():
        model(**ROWS)
    seen = quantization.statistics()
    values = computed(path, sorted({name for chain in found.values() for name in chain}))
    for site in quantization.sites:
        chain = found[f"{site.module}:{site.kind}"]
        if site.is_weight:
            weight = model.get_submodule(site.module).weight.detach().numpy()
            assert any(np.array_equal(values[name], each) for name in chain for each in (weight, weight.T))
            continue
        statistics = seen[site.quantizer]
        ends = min(statistics.lows), max(statistics.highs)
        near = values[chain[0]]
        np.testing.assert_allclose((near.min(), near.max()), ends, rtol=1e-4, atol=1e-5, err_msg=site.name)
