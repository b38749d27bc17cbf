"""Integer checkpoints: the same weights at a fraction of the bytes, for qexp and for transformers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qexp.config import ActivationScheme, Placement, Quant, Scheme, WeightScheme
from qexp.errors import ModelError
from qexp.models.integer_checkpoint import checkpoint_of, save_integers
from qexp.models.integer_files import publish_integers
from qexp.models.integer_loading import load_checkpoint
from tests.support.tiny_models import batch, build, calibrated

WEIGHTS = ("linear.weight", "embedding.weight")
ORACLE = "QEXP_COMPRESSED_TENSORS_PYTHON"
"""Python of an environment with transformers and compressed-tensors."""
SCHEMES = [
    (granularity, symmetric) for granularity in ("per_tensor", "per_channel") for symmetric in (True, False)
]


def written(
    folder: Path,
    bits: int,
    granularity: Any,
    symmetric: bool,
    *,
    sites: tuple[Any, ...] = (*WEIGHTS, "linear.input"),
    dynamic: Any = None,
) -> Any:
    """A tiny BERT in ``folder``: its quantizers, and what the checkpoint holds."""
    model = build("bert", attention="sdpa")
    scheme = Scheme(
        weight=WeightScheme(granularity=granularity, symmetric=symmetric),
        activation=ActivationScheme(symmetric=symmetric, dynamic=dynamic),
    )
    placement = Placement(name="some", sites=sites)
    quantization = calibrated(model, Quant(weight_bits=bits, activation_bits=8), scheme, placement)
    quantization.freeze()
    checkpoint = checkpoint_of(quantization)
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    save_integers(quantization, folder / "saved")
    publish_integers(folder / "saved", config, folder)
    return quantization, checkpoint


@pytest.mark.parametrize(("granularity", "symmetric"), SCHEMES)
@pytest.mark.parametrize("bits", [8, 6, 4, 2])
def test_weights_are_those_of_the_simulation_bit_for_bit(
    tmp_path: Path, bits: int, granularity: Any, symmetric: bool
) -> None:
    quantization, checkpoint = written(tmp_path, bits, granularity, symmetric)
    loaded = load_checkpoint(tmp_path)
    for site in quantization.sites:
        if site.is_weight:
            expected = quantization.model.get_submodule(site.module).weight
            assert torch.equal(loaded.get_submodule(site.module).weight, expected), site.name
    assert (len(checkpoint.stored), len(checkpoint.inputs), checkpoint.in_float) == (17, 14, {})
    assert not loaded.training


def test_a_weight_of_eight_bits_takes_a_quarter_and_one_of_four_an_eighth(tmp_path: Path) -> None:
    sizes = {}
    for bits in (8, 4):
        folder = tmp_path / str(bits)
        folder.mkdir()
        written(folder, bits, "per_channel", True)
        tensors = load_file(folder / "model.safetensors")
        name = "bert.encoder.layer.0.intermediate.dense.weight"
        stored = tensors.get(name, tensors.get(f"{name}_packed"))
        assert stored is not None
        sizes[bits] = stored.nbytes
    assert sizes == {8: 64 * 32, 4: 64 * 32 // 2}


def test_tables_and_zero_points_of_channels_that_transformers_cannot_unpack_are_in_whole_bytes(
    tmp_path: Path,
) -> None:
    _, symmetric = written(tmp_path, 4, "per_channel", True)
    formats = {
        target: group["format"]
        for group in symmetric.section["config_groups"].values()
        for target in group["targets"]
    }
    assert {name for name, layout in formats.items() if layout == "int-quantized"} == {
        f"bert.embeddings.{name}_embeddings" for name in ("word", "position", "token_type")
    }
    assert symmetric.section["format"] == "mixed-precision"
    _, asymmetric = written(tmp_path, 4, "per_channel", False)
    assert asymmetric.section["format"] == "int-quantized"


def test_what_the_layout_cannot_hold_stays_in_floating_point_on_its_grid(tmp_path: Path) -> None:
    quantization, checkpoint = written(tmp_path, 12, "per_tensor", False)
    assert set(checkpoint.in_float.values()) == {"more than 8 bits"}
    assert len(checkpoint.in_float) == 17
    loaded = load_checkpoint(tmp_path)
    query = "bert.encoder.layer.1.attention.self.query"
    expected = quantization.model.get_submodule(query).weight
    assert torch.equal(loaded.get_submodule(query).weight, expected)
    assert not torch.equal(expected, build("bert").get_submodule(query).weight)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quant_method", "gptq"),
        ("quantization_status", "frozen"),
        ("format", "nvfp4-pack-quantized"),
        ("type", "float"),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, field: str, value: str) -> None:
    written(tmp_path, 8, "per_tensor", True)
    config = json.loads((tmp_path / "config.json").read_text())
    section = config["quantization_config"]
    group = section["config_groups"]["group_0"]
    {"format": group, "type": group["weights"]}.get(field, section)[field] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=value):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("fault", ["missing", "cut", "shape"])
def test_a_damaged_file_is_named(tmp_path: Path, fault: str) -> None:
    written(tmp_path, 4, "per_channel", True)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "bert.pooler.dense.weight_packed"
    if fault == "missing":
        del tensors[name]
    if fault == "shape":
        tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, file)
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError) as error:
        load_checkpoint(tmp_path)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("dynamic", ["tensor", "token"])
def test_ranges_at_run_time_are_named_and_take_no_tensor(tmp_path: Path, dynamic: Any) -> None:
    """As compressed-tensors' presets of dynamic activations, such as W8A8 (``strategy: token``)."""
    quantization, checkpoint = written(tmp_path, 8, "per_channel", True, dynamic=dynamic)
    groups = checkpoint.section["config_groups"].values()
    inputs = [group["input_activations"] for group in groups if group["input_activations"]]
    assert inputs == [
        {
            "num_bits": 8, "type": "int", "symmetric": True, "strategy": dynamic, "dynamic": True,
            "group_size": None,
        }
    ]  # fmt: skip
    assert len(checkpoint.inputs) == 14
    assert not [name for name in checkpoint.tensors if "input_" in name]
    for site in quantization.sites:
        if site.is_weight:
            expected = quantization.model.get_submodule(site.module).weight
            assert torch.equal(load_checkpoint(tmp_path).get_submodule(site.module).weight, expected)
            break


@pytest.mark.slow
@pytest.mark.skipif(ORACLE not in os.environ, reason=f"{ORACLE} names no Python with compressed-tensors")
def test_transformers_computes_the_logits_of_the_simulation(tmp_path: Path) -> None:
    rows = {**batch(), "token_type_ids": torch.zeros(3, 7, dtype=torch.int64)}
    expected = {}
    for bits in (8, 4, 2, 3):
        for granularity, symmetric in SCHEMES:
            for sites in (WEIGHTS, (*WEIGHTS, "linear.input")):
                folder = tmp_path / f"{bits}-{granularity}-{symmetric}-{len(sites)}"
                folder.mkdir()
                quantization, _ = written(folder, bits, granularity, symmetric, sites=sites)
                with torch.no_grad():
                    expected[folder.name] = quantization.model(**rows).logits
    save_file(rows, tmp_path / "rows.safetensors")
    script = Path(__file__).parents[1] / "support" / "compressed_tensors_logits.py"
    command = [os.environ[ORACLE], "-I", str(script), str(tmp_path), *expected]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = load_file(tmp_path / "logits.safetensors")
    for name, logits in expected.items():
        torch.testing.assert_close(found[name], logits, rtol=0, atol=1e-6)
