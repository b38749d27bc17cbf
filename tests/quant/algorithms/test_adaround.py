"""AdaRound compared with exhaustive search over all roundings, on small problems."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qexp.quant.algorithms.adaround import adaround
from qexp.quant.grid import Grid, fake_quantize, quantize
from tests.support.rounding_problems import SIZE, grid_of, problem


def least(weight: Tensor, scale: Tensor, gram: Tensor, qmax: int) -> np.ndarray:
    """The least error of each row over all ways to round its weights up or down, in float64."""
    w, g = weight.double().numpy(), gram.double().numpy()
    result = []
    for row, s in zip(w, scale.double().numpy(), strict=True):
        floor = np.clip(np.floor(row / s), -qmax, qmax - 1)
        up = np.array(list(itertools.product((0, 1), repeat=len(row))))
        errors = (floor + up) * s - row
        result.append(np.einsum("ki,ij,kj->k", errors, g, errors).min())
    return np.array(result)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_near_the_best_of_all_ways_to_round(bits: int) -> None:
    """Two thirds of what could be gained at all; the paper's method finds no optimum either."""
    grid = Grid(bits, signed=True, symmetric=True, narrow=True, axis=0)
    gained = []
    for seed in range(4):
        weight, gram = problem(seed)
        scale, zero = grid_of(weight, grid)
        result = adaround(weight, scale, zero, grid=grid, gram=gram, iterations=500)
        best = least(weight, scale, gram, grid.qmax).sum()
        assert best <= result.error * (1 + 1e-5)
        assert result.error <= result.nearest
        gained.append((result.nearest - result.error) / (result.nearest - best))
    assert np.mean(gained) > 2 / 3
    assert min(gained) > 1 / 3


@given(
    seed=st.integers(0, 10_000), bits=st.integers(2, 8), symmetric=st.booleans(),
    axis=st.sampled_from([None, 0]), shrink=st.sampled_from([1.0, 0.6]),
)  # fmt: skip
def test_on_the_grid_beside_the_weight_and_never_worse(
    seed: int, bits: int, symmetric: bool, axis: int | None, shrink: float
) -> None:
    grid = Grid(bits, signed=symmetric, symmetric=symmetric, narrow=symmetric, axis=axis)
    weight, gram = problem(seed, rows=3, size=6)
    scale, zero = grid_of(weight * shrink, grid)  # shrunken: some weights are outside
    result = adaround(weight, scale, zero, grid=grid, gram=gram, iterations=40)
    again = fake_quantize(result.weight, scale, zero, grid)
    torch.testing.assert_close(again, result.weight, rtol=1e-6, atol=0)
    integers = quantize(result.weight, scale, zero, grid)
    moved = (integers - quantize(weight, scale, zero, grid)).abs()
    assert int(moved.max()) <= 1
    near = fake_quantize(weight, scale, zero, grid)
    for rounded, reported in ((result.weight, result.error), (near, result.nearest)):
        error = (rounded - weight).double().numpy()
        assert np.trace(error @ gram.double().numpy() @ error.T) == pytest.approx(
            reported, rel=1e-3, abs=1e-6
        )
    assert result.error <= result.nearest


def test_independent_inputs_want_the_nearest_levels() -> None:
    weight, _ = problem(1)
    grid = Grid(4, signed=True, symmetric=True, narrow=True, axis=0)
    scale, zero = grid_of(weight, grid)
    result = adaround(weight, scale, zero, grid=grid, gram=torch.diag(torch.rand(SIZE) + 0.1), iterations=200)
    assert torch.equal(result.weight, fake_quantize(weight, scale, zero, grid))
    assert result.rows == 0 and result.error == result.nearest


def test_an_input_that_is_always_zero() -> None:
    weight, _ = problem(2)
    grid = Grid(4, signed=True, symmetric=True, narrow=True)
    scale, zero = grid_of(weight, grid)
    result = adaround(weight, scale, zero, grid=grid, gram=torch.zeros(SIZE, SIZE), iterations=20)
    assert torch.equal(result.weight, fake_quantize(weight, scale, zero, grid))


def test_rows_are_problems_of_their_own() -> None:
    weight, gram = problem(3)
    grid = Grid(3, signed=True, symmetric=True, narrow=True, axis=0)
    scale, zero = grid_of(weight, grid)
    whole = adaround(weight, scale, zero, grid=grid, gram=gram, iterations=100).weight
    part = adaround(weight[4:7], scale[4:7], zero[4:7], grid=grid, gram=gram, iterations=100).weight
    torch.testing.assert_close(part, whole[4:7])
