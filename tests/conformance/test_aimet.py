"""Quantizers beside those of AIMET 2.42."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from qexp.config import WeightScheme
from qexp.quant.grid import Grid, range_of_qparams, weight_grid
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode
from tests.conformance import inputs
from tests.conformance.golden_files import arrays, golden
from tests.conformance.ours import aimet, aimet_ranges
from tests.conformance.ours.encoders import calibrated

GOLDEN = golden("aimet")


def keys(program: str, *forms: str, zeros: bool = False) -> list[str]:
    """Entries of the golden ranges; zeros have a smallest scale of their own, so they are left out."""
    found = [key for key in GOLDEN["ranges"] if key.split()[1] == program and key.split()[3] in forms]
    return [key for key in found if zeros or not key.startswith("zeros")]


def full_grid(key: str) -> Grid:
    """AIMET's grid of weights, as the configuration has it."""
    rows = key.endswith(" rows")
    scheme: dict[str, Any] = {"narrow": False, "range": "full"}
    scheme["granularity"] = "per_channel" if rows else "per_tensor"
    grid = weight_grid(int(key.split()[2]), WeightScheme(**scheme))
    assert grid is not None
    return grid


def activation(key: str) -> Grid:
    return Grid(int(key.split()[2]), signed=False, symmetric=False)


@pytest.mark.parametrize("key", keys("tf", "asymmetric"))
def test_the_range_of_an_activation_is_that_of_tf(key: str) -> None:
    scale, first = aimet_ranges.encoding(key, activation(key))
    real_scale, real_first = GOLDEN["ranges"][key]
    np.testing.assert_allclose(scale, real_scale, rtol=1e-6)
    assert first.tolist() == real_first


@pytest.mark.parametrize("key", keys("sqnr", "asymmetric") + keys("tf_enhanced", "asymmetric"))
def test_the_range_of_an_activation_has_no_more_noise_than_aimets(key: str) -> None:
    """Most are the same. Where bins are wider than steps, another candidate may win."""
    grid = activation(key)
    ours, steps = aimet_ranges.encoding(key, grid), grid.qmax - grid.qmin
    real = GOLDEN["ranges"][key]
    assert (
        aimet_ranges.noise_beyond(aimet_ranges.values_of(key), (*real, steps), (*ours, steps))
        < aimet_ranges.ALIKE
    )
    if " sqnr " in key:
        np.testing.assert_allclose(ours[0], real[0], rtol=5e-3 if key.startswith("batches") else 1e-4)


@pytest.mark.parametrize("key", keys("tf", "symmetric", "rows"))
def test_the_range_of_a_weight_is_that_of_tf(key: str) -> None:
    scale, first = aimet_ranges.encoding(key, full_grid(key))
    real_scale, real_first = GOLDEN["ranges"][key]
    np.testing.assert_allclose(scale, real_scale, rtol=1e-6)
    assert set(first.tolist()) == set(real_first)


@pytest.mark.parametrize("key", keys("sqnr", "symmetric", "rows") + keys("tf_enhanced", "symmetric", "rows"))
def test_the_range_of_a_weight_has_no_more_noise_than_aimets(key: str) -> None:
    grid = full_grid(key)
    ours, steps = aimet_ranges.encoding(key, grid), grid.qmax - grid.qmin
    beyond = aimet_ranges.noise_beyond(
        aimet_ranges.values_of(key), (*GOLDEN["ranges"][key], steps), (*ours, steps)
    )
    assert beyond < aimet_ranges.ALIKE


@pytest.mark.parametrize("key", GOLDEN["values"])
def test_integers_are_aimets(key: str) -> None:
    real = GOLDEN["values"][key]
    assert aimet_ranges.steps(key, real["scale"], aimet_ranges.GRIDS[key]).tolist() == real["steps"]


@pytest.mark.parametrize("key", GOLDEN["values"])
def test_learned_ends_have_aimets_gradients(key: str) -> None:
    real, method = GOLDEN["values"][key], SimpleNamespace(range_parameters="ends", gradient="grid")
    passes, _, quantizer = aimet_ranges.learning(real["scale"], aimet_ranges.GRIDS[key], method)
    assert passes.tolist() == real["passes"]
    moved = quantizer.moved_ends
    assert moved is not None and moved.grad is not None
    np.testing.assert_allclose(moved.grad, [real["minimum"], real["maximum"]], rtol=1e-4)


def test_a_step_of_adam_moves_the_ends_as_aimets() -> None:
    real = GOLDEN["learned"]
    grid = full_grid("normal tf_enhanced 4 symmetric")
    quantizer = Quantizer("weight", grid)
    quantizer.set_range(*torch.tensor(real["before"]))
    quantizer.learns_ends, quantizer.gradient = True, "grid"
    quantizer.switch(QuantizerMode.LEARNED)
    quantizer.renew_bounds()
    weight = torch.from_numpy(inputs.rows(inputs.tensors()["normal"]) * np.float32(0.05))
    optimizer = torch.optim.Adam(quantizer.parameters(), 1e-3)
    (quantizer(weight) * torch.linspace(-1, 1, weight.numel()).view_as(weight)).sum().backward()
    assert quantizer.moved_ends is not None and quantizer.moved_ends.grad is not None
    np.testing.assert_allclose(quantizer.moved_ends.grad, real["gradients"], rtol=1e-4)
    optimizer.step()
    ends = range_of_qparams(quantizer.current_scale().detach(), quantizer.zero_point, grid)
    np.testing.assert_allclose(ends, real["after"], rtol=1e-4)


def test_the_recipe_has_aimets_sites() -> None:
    """But for the inputs of adds, which no module computes."""
    assert aimet.sites_row(GOLDEN).verdict.startswith("variant")


def test_float_ranges_of_bert_are_aimets() -> None:
    batches = inputs.bert_batches(4)
    quantization = calibrated(aimet_ranges.recipe("quant=w4a8", "calibrator=max"), batches, plain=True)
    bert = arrays("aimet", "bert")
    assert aimet.activations_row("tf 4", bert, quantization, batches, " float weights").equal


def test_the_recipe_has_aimets_ranges_and_logits_of_bert() -> None:
    rows = list(aimet.model_rows(arrays("aimet", "bert"), cases=("tf 4",)))
    assert len(rows) == 4
    assert [row.what for row in rows if not row.equal] == ["first logits, tf 4"]


def test_weight_ranges_follow_a_training_step() -> None:
    rows = list(aimet.training_rows(arrays("aimet", "bert")))
    verdicts = {row.what.rpartition(" ")[2]: row.verdict for row in rows}
    assert verdicts["tf"] == "equal"
    assert verdicts["sqnr"] != "differs"


def test_a_linear_layer_is_that_of_its_encodings_file() -> None:
    assert aimet_ranges.encodings_row(GOLDEN).equal
