"""Quantizers beside those of NLP Architect 0.5.4, the package of Q8BERT."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from qexp.config import ActivationScheme, EmaCalibrator, WeightScheme
from qexp.quant.grid import Grid, activation_grid, weight_grid
from tests.conformance import inputs
from tests.conformance.golden_files import arrays, golden
from tests.conformance.ours import q8bert

GOLDEN = golden("q8bert")
MAGNITUDE = "minimum and maximum are averaged apart: needs range_statistic=magnitude"


def weights(bits: int) -> Grid:
    grid = weight_grid(bits, WeightScheme(granularity="per_tensor"))
    assert grid is not None
    return grid


def activations(bits: int) -> Grid:
    scheme: dict[str, Any] = {"symmetric": True, "narrow": True}
    grid = activation_grid(bits, ActivationScheme(**scheme))
    assert grid is not None
    return grid


@pytest.mark.parametrize("bits", [4, 8])
def test_scales_are_the_packages(bits: int) -> None:
    """But for zeros, of which the package makes NaN."""
    ours = q8bert.scales(weights(bits), bits)
    for key, scale in ours.items():
        if not key.startswith("zeros"):
            assert scale == pytest.approx(GOLDEN["scales"][key], rel=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_integers_of_weights_are_the_packages(bits: int) -> None:
    assert q8bert.steps(weights(bits)).tolist() == GOLDEN["values"][str(bits)]["steps"]


@pytest.mark.parametrize("bits", [4, 8])
def test_integers_of_activations_are_the_packages(bits: int) -> None:
    assert q8bert.steps(activations(bits)).tolist() == GOLDEN["values"][str(bits)]["steps"]


@pytest.mark.parametrize("bits", [4, 8])
def test_gradients_pass_as_in_the_package(bits: int) -> None:
    passes = q8bert.passes(weights(bits), SimpleNamespace(gradient="all"))
    assert passes.tolist() == GOLDEN["values"][str(bits)]["passes"]


def test_moving_averages_are_the_packages() -> None:
    method = SimpleNamespace(
        range_decay=0.9999, range_statistic="magnitude", range_start="first_batch", gradient="all"
    )
    found = q8bert.moving_thresholds(weights(8), method)
    np.testing.assert_allclose(found, GOLDEN["moving"], rtol=2e-6)


@pytest.mark.parametrize("count", [1, 5, 50])
def test_the_calibrator_averages_as_the_package(count: int) -> None:
    settings: dict[str, Any] = {"kind": "ema", "decay": 0.9999, "statistic": "magnitude"}
    found = q8bert.calibrated_threshold(count, EmaCalibrator(**settings), weights(8))
    assert found == pytest.approx(GOLDEN["moving"][count - 1], rel=2e-6)


def test_the_recipe_has_the_packages_sites() -> None:
    assert q8bert.sites_row(GOLDEN).equal


def test_first_steps_of_the_recipe_are_the_packages() -> None:
    """A value beside a tie may fall the other way, in a few of the batches."""
    real = arrays("q8bert", "bert")["first logits"]
    found = q8bert.first_steps(q8bert.recipe())
    apart = np.abs(found - real).reshape(len(real), -1).max(1)
    assert np.median(apart) < 1e-5 and len(real) == inputs.FIRST_STEPS


def test_thresholds_of_the_recipe_are_the_packages_after_50_batches() -> None:
    _, found, _ = q8bert.trained(q8bert.recipe(), head_delay=True)
    compared = 0
    for key, value in arrays("q8bert", "bert").items():
        count, _, name = key.partition("|")
        if count == "50" and not name.endswith(":weight") and float(value):
            assert float(found[(50, *q8bert.site_of(name))]) == pytest.approx(float(value), rel=1e-4)
            compared += 1
    assert compared == 17
