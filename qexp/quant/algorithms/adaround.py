"""AdaRound: weights rounded up or down to preserve the output of a layer, instead of to the nearest level.

Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization" (arXiv 2004.10568). The
error of :mod:`qexp.quant.algorithms.rounding` is minimized for all rows in parallel.

Each weight is ``floor(w) + h(V)`` steps, where ``h`` is the rectified sigmoid
``clamp(sigmoid(V) (zeta - gamma) + gamma, 0, 1)`` (equation 23). Adam minimizes, over V,

    tr(E G E^T) / mean(diag(G)) + lambda sum(1 - |2 h(V) - 1|^beta)

with errors in steps of the grid. Because of the division by the mean of the diagonal, the contribution of a
weight to the first term has the order of its squared error in every layer, so one lambda fits all. Beta
decays along a cosine: a large beta affects h(V) only near 0 and 1, a small one drives it there (equation 24).
At the end h(V) is rounded.

Departures from the paper: there is no phase without the second term, beta starts at 8 instead of 20, and
Adam's learning rate is 3e-2. On the layers of a MiniLM this takes 500 steps where the paper takes 10 000;
with beta from 20 and a warm-up of a fifth, 1000 steps end at the same error.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qexp.quant.algorithms.rounding import RoundingProblem, RoundingResult
from qexp.quant.grid import Grid

ZETA, GAMMA = 1.1, -0.1
"""Bounds of the stretched sigmoid before it is rectified."""
LAMBDA = 1.0
BETA_FIRST, BETA_LAST = 8.0, 2.0
RATE = 3e-2
DECAYS = (0.9, 0.999)
"""Decay rates of Adam's first and second moment."""
EPSILON = 1e-8


@torch.no_grad()
def adaround(
    weight: Tensor, scale: Tensor, zero_point: Tensor, *, grid: Grid, gram: Tensor, iterations: int
) -> RoundingResult:
    """Round a weight by the second moments of its input.

    A row whose error would not be smaller than with the nearest levels keeps the nearest levels.

    Args:
        weight: Weight [out, in], float32.
        scale: Scale, a scalar, [out], or flat [out * in / block].
        zero_point: Zero point, in the shape of ``scale``.
        grid: Grid, per tensor or with axis 0.
        gram: Second moments ``E[x x^T]``, float32 [in, in], on the device of the weight.
        iterations: Number of Adam steps.
    """
    problem = RoundingProblem.of(weight, scale, zero_point, grid=grid, gram=gram)
    floor = torch.minimum(torch.maximum(problem.steps.floor(), problem.lower), problem.upper - 1)
    return problem.result(floor + _round_up(problem.steps, floor, gram, iterations))


def _round_up(steps: Tensor, floor: Tensor, gram: Tensor, iterations: int) -> Tensor:
    """Return 1 where a weight is rounded up and 0 elsewhere, in the shape of ``steps``."""
    size = gram.diagonal().mean()
    slope = gram * (2 / size.where(size > 0, 1.0))
    fraction = steps - floor  # outside [0, 1] where the weight is outside the grid
    v = -torch.log((ZETA - GAMMA) / (fraction.clamp(0, 1) - GAMMA) - 1)
    first, second = torch.zeros_like(v), torch.zeros_like(v)
    for step in range(1, iterations + 1):
        sigmoid = v.sigmoid()
        h = (sigmoid * (ZETA - GAMMA)).add_(GAMMA).clamp_(0, 1)
        inside = (h > 0) & (h < 1)
        gradient = (h - fraction) @ slope
        _add_regularization(gradient, h, step / iterations)
        gradient.mul_(sigmoid).mul_(sigmoid.neg_().add_(1)).mul_(inside)
        _adam(v, gradient, first=first, second=second, step=step)
    return ((v.sigmoid_() * (ZETA - GAMMA)).add_(GAMMA) >= 0.5).to(steps.dtype)


def _add_regularization(gradient: Tensor, h: Tensor, progress: float) -> None:
    """Add the gradient of ``lambda (1 - |2 h - 1|^beta)`` with respect to ``h``; overwrites ``h``."""
    beta = BETA_LAST + (BETA_FIRST - BETA_LAST) * 0.5 * (1 + math.cos(math.pi * progress))
    side = h.mul_(2).sub_(1)
    gradient.addcmul_(side.abs().pow_(beta - 1), side.sign(), value=-2 * LAMBDA * beta)


def _adam(v: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: int) -> None:
    """Take one Adam step.

    The constant slope of the stretched sigmoid is left out, because Adam is invariant to the gradient scale.
    """
    first.lerp_(gradient, 1 - DECAYS[0])
    second.mul_(DECAYS[1]).addcmul_(gradient, gradient, value=1 - DECAYS[1])
    spread = second.div(1 - DECAYS[1] ** step).sqrt_().add_(EPSILON)
    v.addcdiv_(first, spread, value=-RATE / (1 - DECAYS[0] ** step))
