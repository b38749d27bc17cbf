"""AdaRound: weights rounded up or down so that a layer's output stays, not each to the nearest level.

Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization" (arXiv 2004.10568). Over
calibration tokens x the mean squared error of a layer's output is ``tr(E G E^T)`` with ``E`` the error of
the weight and ``G = E[x x^T]`` (equation 11 there), so tokens need not be kept. Rows of ``E`` do not meet:
each is a problem of its own, and all are solved at once.

Each weight is ``floor(w) + h(V)`` steps, ``h`` being the rectified sigmoid ``clamp(sigmoid(V) (zeta - gamma)
+ gamma, 0, 1)`` (equation 23), and Adam minimizes, over V,

    tr(E G E^T) / mean(diag(G)) + lambda sum(1 - |2 h(V) - 1|^beta)

with errors in steps of the grid. Divided by the mean of the diagonal, a weight's share of the first term is
of the order of its squared error, whatever the layer, so one lambda serves all. Beta falls along a cosine: a
large one leaves V alone but near 0 and 1, a small one drives it there (equation 24). At the end V is rounded.

Departures from the paper: no phase without the second term, beta starts at 8 instead of 20, and Adam's
rate is 3e-2. On the layers of a MiniLM this takes 500 steps where the paper takes 10 000; with beta from
20 and a warm-up of a fifth, 1000 steps end at the same error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qexp.quant.grid import Grid

ZETA, GAMMA = 1.1, -0.1
"""Ends of the stretched sigmoid before it is rectified."""
LAMBDA = 1.0
BETA_FIRST, BETA_LAST = 8.0, 2.0
RATE = 3e-2
DECAYS = (0.9, 0.999)
"""Of Adam."""
EPSILON = 1e-8


@dataclass(frozen=True)
class Rounded:
    """A weight on its grid, and what was gained."""

    weight: Tensor
    """Real values of the grid, of the shape of the weight."""
    rows: int
    """Rows that differ from rounding to the nearest level; the others it serves no worse."""
    nearest: float
    """``tr(E G E^T)`` of rounding to the nearest level."""
    error: float
    """``tr(E G E^T)`` of this rounding; never above the other one."""


@torch.no_grad()
def adaround(
    weight: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid, gram: Tensor, iterations: int
) -> Rounded:
    """Round a weight by the second moments of what it is multiplied with.

    A row whose error would be larger than with the nearest levels keeps those.

    Args:
        weight: float32 [out, in].
        scale: of the grid, a number or [out].
        zero_point: the same.
        grid: per tensor, or with axis 0.
        gram: ``E[x x^T]``, float32 [in, in], on the weight's device.
        iterations: steps of Adam.
    """
    scale, zero = grid.expand(scale, 2), grid.expand(zero_point, 2)
    lower, upper = (grid.qmin - zero).to(weight.dtype), (grid.qmax - zero).to(weight.dtype)
    steps = weight / scale
    nearest = torch.minimum(torch.maximum(steps.round(), lower), upper)
    floor = torch.minimum(torch.maximum(steps.floor(), lower), upper - 1)
    chosen = floor + _up(steps, floor, gram, iterations)
    before, after = (_row_errors((levels - steps) * scale, gram) for levels in (nearest, chosen))
    better = after < before
    levels = torch.where(better[:, None], chosen, nearest)
    return Rounded(
        levels * scale, int((better & (chosen != nearest).any(1)).sum()), float(before.sum()),
        float(torch.where(better, after, before).sum()),
    )  # fmt: skip


def _up(steps: Tensor, floor: Tensor, gram: Tensor, iterations: int) -> Tensor:
    """1 where a weight is to be rounded up, else 0; of the shape of ``steps``."""
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
        _adam(v, gradient, first, second, step)
    return ((v.sigmoid_() * (ZETA - GAMMA)).add_(GAMMA) >= 0.5).to(steps.dtype)


def _add_regularization(gradient: Tensor, h: Tensor, progress: float) -> None:
    """Add the gradient of ``lambda (1 - |2 h - 1|^beta)``; the slope of the sigmoid comes later."""
    beta = BETA_LAST + (BETA_FIRST - BETA_LAST) * 0.5 * (1 + math.cos(math.pi * progress))
    side = h.mul_(2).sub_(1)
    gradient.addcmul_(side.abs().pow_(beta - 1), side.sign(), value=-2 * LAMBDA * beta)


def _adam(v: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: int) -> None:
    """One step; the constant slope of the stretched sigmoid is left out, since Adam knows no scale."""
    first.lerp_(gradient, 1 - DECAYS[0])
    second.mul_(DECAYS[1]).addcmul_(gradient, gradient, value=1 - DECAYS[1])
    spread = second.div(1 - DECAYS[1] ** step).sqrt_().add_(EPSILON)
    v.addcdiv_(first, spread, value=-RATE / (1 - DECAYS[0] ** step))


def _row_errors(error: Tensor, gram: Tensor) -> Tensor:
    """``e G e^T`` of each row, float64 [rows]."""
    return ((error @ gram) * error).sum(1, dtype=torch.float64)
