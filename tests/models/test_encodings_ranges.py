"""AIMET encodings back on a model: each quantizer gets the scale and zero point that were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from qexp.config import ActivationScheme, ImportedCalibrator, Placement, Quant, Scheme, WeightScheme
from qexp.deploy.onnx.encodings import write_encoded
from qexp.deploy.onnx.encodings_file import document
from qexp.errors import QuantizationError
from qexp.models.encodings_ranges import encodings_ranges
from qexp.naming import EncodingsVersion
from qexp.quant.calibration.imported import write_imported
from qexp.quant.insertion.imported_ranges import import_ranges
from tests.support.tiny_encoders import encoder
from tests.support.tiny_models import QDQBERT, batch, calibrated

ROWS = {**batch(), "token_type_ids": torch.zeros(3, 7, dtype=torch.int64)}
EVERY_OUTPUT = Placement(
    name="every output",
    sites=(
        "linear.weight", "embedding.weight", "embedding.output", "linear.output", "attention.scores",
        "matmul.probs", "attention.context", "layernorm.input", "layernorm.output", "activation.output",
    ),
)  # fmt: skip


def quantized(placement: Placement, symmetric: bool, *, spread: float = 1.0) -> Any:
    model = encoder("bert")
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            # Equal parameters would be stored once, under one of their names.
            parameter.mul_(spread).add_(0.05 * torch.randn(parameter.shape))
    scheme = Scheme(
        weight=WeightScheme(granularity="per_tensor", symmetric=symmetric),
        activation=ActivationScheme(symmetric=symmetric),
    )
    return calibrated(model, Quant(weight_bits=4, activation_bits=8), scheme, placement)


@pytest.mark.parametrize(
    ("placement", "symmetric"),
    [(EVERY_OUTPUT, False), pytest.param(QDQBERT, True, marks=pytest.mark.slow)],
)
def test_what_was_exported_comes_back(tmp_path: Path, placement: Placement, symmetric: bool) -> None:
    source = quantized(placement, symmetric)
    widths = {f"{site.module}.{site.parameter}": 4 for site in source.sites if site.is_weight}
    with source.export_mode():
        found = write_encoded(source.model, tmp_path / "m.onnx", example=ROWS, weight_bits=widths)
    named = [{str(value.name): each for value, each in part} for part in (found.activations, found.weights)]
    for version in get_args(EncodingsVersion):
        file = tmp_path / f"{version}.encodings"
        file.write_text(json.dumps(document(version, *named)))
        ranges = encodings_ranges(file, None)
        assert all(each.sites for each in ranges), [each.name for each in ranges if not each.sites]
        write_imported(tmp_path / "ranges.json", "test", ranges)
        target = quantized(placement, symmetric, spread=0.5)
        calibrator = ImportedCalibrator.model_validate(
            {"kind": "imported", "path": str(tmp_path / "ranges.json")}
        )
        account = import_ranges(target, calibrator)
        assert (account["rounded"], account["unused"], account["calibrated"]) == ([], [], [])
        expected, result = source.ranges(), target.ranges()
        assert all(torch.equal(result[name], expected[name]) for name in expected), version


MODULES = {
    "version": "1.0.0",
    "activation_encodings": {
        "bert.pooler.dense": {
            "input": {
                "0": {"bitwidth": 8, "dtype": "int", "scale": 0.5, "offset": -128, "is_symmetric": "True"}
            },
            "output": {
                "0": {"bitwidth": 8, "dtype": "int", "scale": 0.25, "offset": -7, "is_symmetric": "False"}
            },
        }
    },
    "param_encodings": {
        "bert.pooler.dense.weight": [
            {"bitwidth": 4, "dtype": "int", "scale": 0.1 * (1 + row), "offset": -8} for row in range(3)
        ],
        "bert.pooler.dense.bias": [{"bitwidth": 32, "dtype": "float"}],
    },
}


def test_a_file_keyed_by_modules_needs_no_graph(tmp_path: Path) -> None:
    (tmp_path / "m.encodings").write_text(json.dumps(MODULES))
    read, written, weight = encodings_ranges(tmp_path / "m.encodings", None)
    assert "bert.pooler.dense:linear.input" in read.sites
    assert (read.low, read.high) == ((-63.5,), (63.5,))
    assert "bert.pooler.dense:linear.output" in written.sites
    assert (written.low, written.high) == ((-1.75,), (62.0,))
    assert "bert.pooler.dense:linear.weight" in weight.sites
    assert (weight.bits, weight.zero_point) == (4, (8, 8, 8))


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"version": "3.0.0", "activation_encodings": [], "param_encodings": []},
        {
            "version": "1.0.0",
            "activation_encodings": [{"name": "x", "enc_type": "PER_BLOCK"}],
            "param_encodings": [],
        },
        {"version": "2.0.0", "encodings": [{"name": "x", "output_dtype": "int4", "y_scale": [[0.1]]}]},
    ],
)
def test_another_form_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "m.encodings").write_text(json.dumps(content))
    with pytest.raises(QuantizationError, match=r"0\.6\.1, 1\.0\.0"):
        encodings_ranges(tmp_path / "m.encodings", None)


def test_a_graph_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "m.encodings").write_text(json.dumps({"version": "2.0.0", "encodings": []}))
    with pytest.raises(QuantizationError, match="--onnx"):
        encodings_ranges(tmp_path / "m.encodings", None)
