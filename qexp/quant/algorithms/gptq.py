"""GPTQ: weights rounded column by column, each error made up for by the columns that are still to come.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(arXiv 2210.17323), algorithm 1. With ``H = G + lambda mean(diag(G)) I``, where ``G = E[x x^T]`` is of the
layer's input and lambda the damping, and the upper factor ``U`` of ``H^-1 = U^T U``: once column j is
rounded,

    W_k -= (W_j - Q(W_j)) / U_jj * U_jk    for all k > j

Columns are treated in order of their index, or of falling ``G_jj`` (activation order). The grid of each
column is that of its index in both cases, with one range or with one for each row or for blocks of columns.
Updates of the columns behind a block of 128 are one product of matrices, as in the paper's lazy batches.

All of it is computed in float64. Departures from the paper: a row that would have a larger error than with
nearest levels keeps those, and an input that is always zero leaves its column at nearest levels instead of
at zero.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qexp.errors import QuantizationError
from qexp.quant.algorithms.rounding import RoundingProblem, RoundingResult
from qexp.quant.grid import Grid

BLOCK = 128
"""Columns between two updates of all later columns; the result does not depend on it, but for rounding."""
SMALLEST_DAMPING = 1e-6
"""Damping that is tried where none was asked for and the moments have no Cholesky factor."""


@torch.no_grad()
def gptq(
    weight: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    *,
    grid: Grid,
    gram: Tensor,
    damping: float,
    activation_order: bool,
) -> RoundingResult:
    """Round a weight by the second moments of its input.

    Args:
        weight: Weight [out, in], float32.
        scale: Scale, as the grid expands it.
        zero_point: Zero point, in the shape of ``scale``.
        grid: Grid of the weight.
        gram: Second moments ``E[x x^T]``, float32 [in, in], on the device of the weight.
        damping: Share of the mean of the diagonal that is added to the diagonal.
        activation_order: Whether columns of larger second moments come first.

    Raises:
        QuantizationError: If the moments are not finite.
    """
    problem = RoundingProblem.of(weight, scale, zero_point, grid=grid, gram=gram)
    diagonal = gram.diagonal()
    order = torch.arange(len(gram), device=gram.device)
    if activation_order:
        order = diagonal.argsort(descending=True, stable=True)
    factor, damping = inverse_factor(gram[order][:, order].double(), damping)
    columns = (
        each.expand_as(weight).T[order].double()
        for each in (weight, problem.scale, problem.lower, problem.upper)
    )
    levels = torch.empty_like(weight)
    levels[:, order] = _levels(*columns, factor=factor).T.to(weight.dtype)
    return replace(problem.result(levels), damping=damping)


def inverse_factor(gram: Tensor, damping: float) -> tuple[Tensor, float]:
    """Return the upper Cholesky factor ``U`` of ``H^-1 = U^T U``, where H is damped; and the damping.

    While the damped moments are not positive definite, ten times the damping is tried.

    Args:
        gram: Second moments, float64 [n, n].
        damping: Share of the mean of the diagonal that is added to the diagonal.

    Raises:
        QuantizationError: If the moments are not finite.
    """
    if not bool(gram.isfinite().all()):
        raise QuantizationError(
            "second moments have NaN or infinity: look for it in the activations of the float model"
        )
    diagonal = gram.diagonal()
    hessian = gram + torch.diag((diagonal == 0).to(gram.dtype))
    while True:
        damped = hessian + torch.diag(torch.full_like(diagonal, damping) * diagonal.mean())
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            factor, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                return factor, damping
        damping = max(10 * damping, SMALLEST_DAMPING)


def _levels(left: Tensor, scale: Tensor, lower: Tensor, upper: Tensor, *, factor: Tensor) -> Tensor:
    """Return the levels of columns, all [in, out] in the order of treatment; overwrites ``left``."""
    levels = torch.empty_like(left)
    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        errors = torch.empty_like(left[start:end])
        for j in range(start, end):
            level = (left[j] / scale[j]).round_()
            levels[j] = torch.minimum(torch.maximum(level, lower[j]), upper[j])
            errors[j - start] = (left[j] - levels[j] * scale[j]) / factor[j, j]
            left[j + 1 : end].addr_(factor[j, j + 1 : end], errors[j - start], alpha=-1)
        left[end:].addmm_(factor[start:end, end:].T, errors, alpha=-1)
    return levels
