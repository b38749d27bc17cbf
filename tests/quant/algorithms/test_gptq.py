"""GPTQ beside Model Optimizer and Brevitas, and what must hold for any weight and any moments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qexp.errors import QuantizationError
from qexp.quant.algorithms.adaround import adaround
from qexp.quant.algorithms.gptq import gptq, inverse_factor
from qexp.quant.algorithms.rounding import RoundingProblem, RoundingResult
from qexp.quant.grid import Grid, fake_quantize, quantize
from tests.support.other_gptq import DAMPING, LAYERS
from tests.support.rounding_problems import grid_of, problem

GOLDEN = json.loads((Path(__file__).parent / "gptq_golden.json").read_text(encoding="utf-8"))
"""Integers of both libraries, by ``python -m tests.support.other_gptq``."""


def rounded(weight: Tensor, gram: Tensor, grid: Grid, *, damping: float = 0.01, order: bool = True) -> Tensor:
    """Integers by GPTQ, with ranges that cover the weight."""
    scale, zero = grid_of(weight, grid)
    result = gptq(weight, scale, zero, grid=grid, gram=gram, damping=damping, activation_order=order)
    return quantize(result.weight, scale, zero, grid)


def own(name: str) -> tuple[RoundingResult, Tensor, RoundingProblem]:
    """Result and integers for a case of the golden file, and its problem."""
    case = LAYERS[name]
    grid = Grid(int(name.split()[0]), signed=True, symmetric=True, narrow=True, axis=0)
    scale, zero = case.scale[:, 0], torch.zeros(len(case.scale), dtype=torch.int32)
    result = gptq(
        case.weight, scale, zero, grid=grid, gram=case.gram, damping=DAMPING,
        activation_order=case.activation_order,
    )  # fmt: skip
    posed = RoundingProblem.of(case.weight, scale, zero, grid=grid, gram=case.gram)
    return result, quantize(result.weight, scale, zero, grid), posed


@pytest.mark.parametrize("library", ["modelopt", "brevitas"])
@pytest.mark.parametrize("name", LAYERS)
def test_integers_are_those_of_other_libraries(name: str, library: str) -> None:
    """But where ours keep the nearest levels, because the other ones have a larger error."""
    result, integers, posed = own(name)
    other = torch.tensor(GOLDEN[name][library])
    kept = posed.row_errors(other.float()) >= posed.row_errors(posed.clamp(posed.steps.round()))
    assert int(kept.sum()) == len(other) - result.rows
    assert (integers == other)[~kept].float().mean() > 0.995
    assert result.error == pytest.approx(float(posed.row_errors(integers.float()).sum()), rel=1e-4)
    others = posed.row_errors(other.float())[~kept].sum()
    assert float(posed.row_errors(integers.float())[~kept].sum()) == pytest.approx(float(others), rel=0.02)


@given(
    seed=st.integers(0, 10_000), bits=st.integers(2, 8), symmetric=st.booleans(), order=st.booleans(),
    axis=st.sampled_from([None, 0]), shrink=st.sampled_from([1.0, 0.6]),
    damping=st.sampled_from([0, 0.01, 1]),
)  # fmt: skip
def test_on_the_grid_and_never_worse(
    seed: int, bits: int, symmetric: bool, order: bool, axis: int | None, shrink: float, damping: float
) -> None:
    grid = Grid(bits, signed=symmetric, symmetric=symmetric, narrow=symmetric, axis=axis)
    weight, gram = problem(seed, rows=3, size=6)
    scale, zero = grid_of(weight * shrink, grid)  # shrunken: some weights are outside
    result = gptq(weight, scale, zero, grid=grid, gram=gram, damping=damping, activation_order=order)
    torch.testing.assert_close(
        fake_quantize(result.weight, scale, zero, grid), result.weight, rtol=1e-6, atol=0
    )
    near = fake_quantize(weight, scale, zero, grid)
    for values, reported in ((result.weight, result.error), (near, result.nearest)):
        error = (values - weight).double().numpy()
        assert np.trace(error @ gram.double().numpy() @ error.T) == pytest.approx(
            reported, rel=1e-3, abs=1e-6
        )
    assert result.error <= result.nearest
    assert result.damping == damping


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("gram", [torch.eye(10), torch.diag(torch.arange(10.0)), torch.zeros(10, 10)])
def test_independent_inputs_want_the_nearest_levels(gram: Tensor, order: bool) -> None:
    weight, _ = problem(1)
    grid = Grid(4, signed=True, symmetric=True, narrow=True, axis=0)
    scale, zero = grid_of(weight, grid)
    assert torch.equal(rounded(weight, gram, grid, order=order), quantize(weight, scale, zero, grid))


def test_activation_order_is_an_order_of_the_columns() -> None:
    weight, gram = problem(5)
    grid = Grid(3, signed=True, symmetric=True, narrow=True, axis=0)
    order = gram.diagonal().argsort(descending=True)
    sorted_columns = rounded(weight[:, order], gram[order][:, order], grid, order=False)
    assert torch.equal(rounded(weight, gram, grid)[:, order], sorted_columns)


def test_ranges_of_blocks_stay_with_their_columns() -> None:
    """Scales [out, in], as blocks of columns have them after expansion."""
    weight, gram = problem(6)

    class Blocks(Grid):
        """Grid whose parameters have the shape of the weight."""

        def expand(self, parameter: Tensor, dimensions: int) -> Tensor:
            return parameter

    grid = Blocks(4, signed=True, symmetric=True, narrow=True)
    blocks = weight.reshape(12, 2, 5).abs().amax(2) / 7
    scale = blocks.repeat_interleave(5, dim=1)
    result = gptq(
        weight, scale, torch.zeros_like(scale, dtype=torch.int32), grid=grid, gram=gram, damping=0.01,
        activation_order=True,
    )  # fmt: skip
    levels = result.weight / scale
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-5)
    assert float(levels.abs().max()) <= 7.00001
    assert result.rows > 0 and result.error < 0.9 * result.nearest


def test_moments_that_are_not_positive_definite_are_damped_more() -> None:
    x = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = x.T @ x  # of rank 3
    factor, damping = inverse_factor(gram, 0.0)
    assert 0 < damping <= 1e-3
    hessian = gram + damping * gram.diagonal().mean() * torch.eye(10)
    torch.testing.assert_close(
        factor.T @ factor @ hessian, torch.eye(10, dtype=torch.float64), rtol=0, atol=1e-5
    )
    indefinite = torch.eye(10, dtype=torch.float64) - 0.2  # smallest eigenvalue -1
    assert inverse_factor(indefinite, 0.01)[1] == 10.0
    with pytest.raises(QuantizationError, match="NaN or infinity"):
        inverse_factor(gram * torch.nan, 0.01)


def test_rows_are_problems_of_their_own() -> None:
    weight, gram = problem(3)
    grid = Grid(3, signed=True, symmetric=True, narrow=True, axis=0)
    assert torch.equal(rounded(weight[4:7], gram, grid), rounded(weight, gram, grid)[4:7])


def test_less_error_than_nearest_levels_and_about_that_of_adaround() -> None:
    weight, gram = problem(7, rows=32, size=48)
    grid = Grid(3, signed=True, symmetric=True, narrow=True, axis=0)
    scale, zero = grid_of(weight, grid)
    by_gptq = gptq(weight, scale, zero, grid=grid, gram=gram, damping=0.01, activation_order=True)
    by_adaround = adaround(weight, scale, zero, grid=grid, gram=gram, iterations=500)
    assert by_gptq.ratio < 0.5 and by_adaround.ratio < 0.5
