"""Float ONNX beside AIMET encodings: the grids of the file give the numbers of the simulation."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch

from qexp.config import (
    ActivationScheme,
    MaxCalibrator,
    Placement,
    Quant,
    QuantizationConfig,
    Scheme,
    WeightScheme,
)
from qexp.deploy.onnx.encodings import write_encoded
from qexp.deploy.onnx.encodings_file import document
from qexp.deploy.runtimes.onnxruntime.session import new_session
from qexp.errors import DeployError
from qexp.naming import EncodingsVersion
from qexp.quant.insertion.insert import insert
from tests.support.encodings import read_encodings, with_grids
from tests.support.tiny_encoders import encoder
from tests.support.tiny_models import QDQBERT, batch, calibrated

VERSIONS = get_args(EncodingsVersion)
EVERY_OUTPUT = Placement(
    name="every output",
    sites=(
        "linear.weight", "embedding.weight", "embedding.output", "linear.input", "linear.output",
        "attention.scores", "matmul.probs", "attention.context", "residual.input", "layernorm.input",
        "layernorm.output", "activation.output",
    ),
)  # fmt: skip
LINEAR = Placement(name="linear", sites=("linear.weight", "linear.input"))
AIMET = "QEXP_AIMET_PYTHON"
"""Python of an environment with aimet-onnx, the oracle."""
ROWS = {**batch(), "token_type_ids": torch.zeros(3, 7, dtype=torch.int64)}


def written(
    folder: Path,
    placement: Placement,
    bits: int,
    *,
    granularity: Any,
    symmetric: bool,
    activation_bits: int = 8,
) -> Any:
    """Write ``m.onnx`` and ``<version>.encodings`` of a tiny BERT; its logits and what the writer found."""
    model = encoder("bert")
    scheme = Scheme(
        weight=WeightScheme(granularity=granularity, symmetric=symmetric),
        activation=ActivationScheme(symmetric=symmetric),
    )
    quant = Quant(weight_bits=bits, activation_bits=activation_bits)
    quantization = calibrated(model, quant, scheme, placement)
    quantization.freeze()
    with torch.no_grad():
        expected = model(**ROWS).logits.numpy()
    widths = {f"{site.module}.{site.parameter}": bits for site in quantization.sites if site.is_weight}
    with quantization.export_mode():
        found = write_encoded(model, folder / "m.onnx", example=ROWS, weight_bits=widths)
    named = [{str(value.name): each for value, each in part} for part in (found.activations, found.weights)]
    for version in VERSIONS:
        content = json.dumps(document(version, *named))
        (folder / f"{version}.encodings").write_text(content, encoding="utf-8")
    return expected, found


def interpreted(folder: Path, version: str) -> np.ndarray:
    """Logits of the file by the independent interpreter, with no optimization of the runtime."""
    import onnxruntime

    model = with_grids(onnx.load(folder / "m.onnx"), read_encodings(folder / f"{version}.encodings"))
    onnx.save(model, folder / "grids.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = new_session(folder / "grids.onnx", options)
    return np.asarray(session.run(None, {name: value.numpy() for name, value in ROWS.items()})[0])


CASES = [
    pytest.param(placement, bits, granularity, symmetric, marks=() if quick else pytest.mark.slow)
    for placement, bits, granularity, symmetric, quick in (
        (EVERY_OUTPUT, 4, "per_tensor", False, True),
        (LINEAR, 8, "per_channel", True, False),
        (EVERY_OUTPUT, 4, "per_channel", True, False),
        (EVERY_OUTPUT, 8, "per_tensor", True, False),
        (EVERY_OUTPUT, 8, "per_channel", False, False),
        (LINEAR, 4, "per_channel", False, False),
        (QDQBERT, 4, "per_channel", True, False),
        (QDQBERT, 8, "per_tensor", False, False),
    )
]


@pytest.mark.parametrize(("placement", "bits", "granularity", "symmetric"), CASES)
def test_an_independent_reader_computes_the_logits_of_the_simulation(
    tmp_path: Path, placement: Placement, bits: int, granularity: Any, symmetric: bool
) -> None:
    expected, found = written(tmp_path, placement, bits, granularity=granularity, symmetric=symmetric)
    for version in VERSIONS:
        np.testing.assert_allclose(interpreted(tmp_path, version), expected, rtol=0, atol=2e-6)
    rows = granularity == "per_channel" and "embedding.weight" in placement.sites
    assert len(found.without) == (3 if rows else 0)
    assert {encoding.bits for _, encoding in found.weights} == {bits}
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert {opset.domain for opset in onnx.load(tmp_path / "m.onnx").opset_import} == {""}
    assert not {node.op_type for node in graph.node} & {"QuantizeLinear", "DequantizeLinear", "Identity"}
    assert onnx.TensorProto.INT8 not in {tensor.data_type for tensor in graph.initializer}


def test_every_fault_in_a_grid_would_be_seen(tmp_path: Path) -> None:
    """The test above fails for any single encoding that is wrong."""
    expected, _ = written(tmp_path, LINEAR, 8, granularity="per_channel", symmetric=True)
    np.testing.assert_allclose(interpreted(tmp_path, "1.0.0"), expected, rtol=0, atol=2e-6)
    file = tmp_path / "1.0.0.encodings"
    sound = json.loads(file.read_text())
    for part in ("activation_encodings", "param_encodings"):
        for index in range(len(sound[part])):
            content = json.loads(json.dumps(sound))
            entry = content[part][index]
            entry["scale"] = [1.2 * each for each in entry["scale"]]
            file.write_text(json.dumps(content))
            assert np.abs(interpreted(tmp_path, "1.0.0") - expected).max() > 1e-5, entry["name"]


@pytest.mark.slow
def test_activations_of_sixteen_bits_and_names_of_the_model(tmp_path: Path) -> None:
    expected, found = written(
        tmp_path, LINEAR, 4, granularity="per_channel", symmetric=True, activation_bits=16
    )
    np.testing.assert_allclose(interpreted(tmp_path, "2.0.0"), expected, rtol=0, atol=2e-6)
    assert {encoding.bits for _, encoding in found.activations} == {16}
    weights = {value.name: encoding for value, encoding in found.weights}
    query = weights["bert.encoder.layer.0.attention.self.query.weight"]
    assert (query.axis, len(query.scale), set(query.zero_point)) == (1, 32, {8})
    read_by_others = [str(value.name) for value in found.copied]
    assert len(read_by_others) == 2 and all(name.endswith(".quantized") for name in read_by_others)


@pytest.mark.slow
def test_a_range_for_each_dimension_is_refused(tmp_path: Path) -> None:
    model = encoder("bert")
    scheme = Scheme(activation=ActivationScheme(granularity="per_embedding_group", groups=4, permute=False))
    quantization = insert(
        model, QuantizationConfig(placement=LINEAR, quant=Quant(), scheme=scheme), example=ROWS
    )
    with torch.no_grad(), quantization.observing(ROWS["attention_mask"], dimensions=True):
        model(**ROWS)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    widths = {f"{site.module}.{site.parameter}": 8 for site in quantization.sites if site.is_weight}
    with quantization.export_mode(), pytest.raises(DeployError, match="per_tensor"):
        write_encoded(model, tmp_path / "m.onnx", example=ROWS, weight_bits=widths)
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.slow
@pytest.mark.skipif(AIMET not in os.environ, reason=f"{AIMET} names no Python with aimet-onnx 2.42")
@pytest.mark.parametrize("placement", [EVERY_OUTPUT, LINEAR, QDQBERT], ids=lambda each: each.name)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_aimet_computes_the_logits_of_the_simulation(
    tmp_path: Path, placement: Placement, bits: int, granularity: Any, symmetric: bool
) -> None:
    expected, found = written(tmp_path, placement, bits, granularity=granularity, symmetric=symmetric)
    np.savez(tmp_path / "rows.npz", **{name: value.numpy() for name, value in ROWS.items()})
    script = Path(__file__).parents[2] / "support" / "aimet_logits.py"
    command = [os.environ[AIMET], "-I", str(script), str(tmp_path), *VERSIONS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for version in VERSIONS:
        result = np.load(tmp_path / f"{version}.npz")
        np.testing.assert_allclose(result["logits"], expected, rtol=0, atol=2e-6)
        assert int(result["enabled"]) == len(found.activations) + len(found.weights)
