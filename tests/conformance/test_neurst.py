"""Quantizers beside those of NeurST 0.1.2."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qexp.config import WeightScheme
from qexp.quant.grid import Grid, activation_grid, weight_grid
from tests.conformance.golden_files import arrays, golden
from tests.conformance.ours import marian, neurst

GOLDEN = golden("neurst")


def grid_of(kind: str, bits: int) -> Grid:
    """NeurST's grid; that of weights reaches the lowest integer."""
    if kind == "weight":
        scheme: dict[str, Any] = {"granularity": "per_tensor", "narrow": False}
        grid = weight_grid(bits, WeightScheme(**scheme))
    else:
        grid = activation_grid(bits, neurst.recipe().scheme.activation, kind)  # type: ignore[arg-type]
    assert grid is not None
    return grid


def compare(kind: str, bits: int) -> None:
    """Integers but those of ties, which NeurST rounds up and qexp to even; and which gradients pass."""
    real, grid = GOLDEN["values"][f"{kind} {bits}"], grid_of(kind, bits)
    ties, found = neurst.is_tie(bits), neurst.steps(kind, grid)
    assert found[~ties].tolist() == np.array(real["steps"])[~ties].tolist()
    apart = found[ties] - np.array(real["steps"])[ties]
    assert set(apart.tolist()) == {0, -1}
    passes, _ = neurst.learning(kind, grid)
    assert passes.tolist() == real["passes"]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["act", "relu"])
def test_activations_are_quantized_as_in_neurst(kind: str, bits: int) -> None:
    compare(kind, bits)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_quantized_as_in_neurst(bits: int) -> None:
    compare("weight", bits)


def test_probabilities_are_quantized_as_in_neurst() -> None:
    compare("softmax", 8)


def test_probabilities_of_4_bits_are_quantized_as_in_neurst() -> None:
    compare("softmax", 4)


def test_the_recipe_has_neursts_ranges_and_sites() -> None:
    assert neurst.sites_row(GOLDEN, neurst.quantized(neurst.recipe())).equal


def test_marian_is_neursts_transformer_in_floating_point() -> None:
    real = arrays("neurst", "transformer")["logits float"]
    found = marian.logits(marian.marian()).reshape(len(real), -1)[:, : real.shape[1]]
    np.testing.assert_allclose(found, real, atol=1e-5)


def test_logits_of_the_recipe_are_neursts() -> None:
    """All of 2+2 layers, at the same ranges."""
    quantization = neurst.quantized(neurst.recipe())
    quantization.freeze()
    real = arrays("neurst", "transformer")["logits"]
    found = marian.logits(quantization.model).reshape(len(real), -1)[:, : real.shape[1]]
    np.testing.assert_allclose(found, real, atol=1e-5)
