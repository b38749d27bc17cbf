"""Fake quantization and its gradients in plain torch: what every other path is held against.

Used where there is nothing faster: without a C compiler, and for devices and types of number that have
no kernel. ``traced`` is for ``torch.compile``, whose own fusion needs to see the arithmetic.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from qexp.quant.bounds import Bounds
from qexp.quant.grid import clamp, clamp_, divide, quantize_dequantize

HALVES = False
"""Whether they take 16-bit floats, and compute in float32 all the same."""


def forward(x: Tensor, scale: Tensor, bounds: Bounds, *, nan_low: bool = False) -> Tensor:
    """Values of the grid nearest to ``x``; NaN stays NaN, or with ``nan_low`` becomes the lowest.

    The result is contiguous whatever the layout of ``x``.
    """
    if nan_low:
        return quantize_dequantize(x, scale, bounds.lower, bounds.upper)
    return clamp_(divide(x, scale).round_(), bounds.lower, bounds.upper).mul_(scale)


def backward(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
    """``grad`` where ``x`` lies inside the range, ends included, else 0; in the layout of ``x``."""
    return _inside(grad, x.div(scale), bounds, torch.empty_like(x))


def backward_learned(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """The same, and for each scale the sum of ``grad * d y / d scale``, in the shape of ``scale``.

    LSQ's derivative is ``round(v) - v`` with ``v = x / scale`` inside, and the bound outside.
    """
    v = x.div(scale)
    passed = _inside(grad, v, bounds, torch.empty_like(x))
    steps = clamp_(v.round(), bounds.lower, bounds.upper)
    return passed, sum_to(steps.mul_(grad).addcmul_(passed, v, value=-1), scale)


def traced(x: Tensor, scale: Tensor, bounds: Bounds, factor: float) -> Tensor:
    """Forward and all gradients in differentiable words; ``factor`` is on the gradient of ``scale``.

    The same bits forward: ``c + (round(c) - c)`` is exactly ``round(c)``, since the difference of two
    floats so near to each other is exact; and ``scale + 0`` is ``scale``.
    """
    scale = damped(scale, factor)
    c = clamp(x / scale, bounds.lower, bounds.upper)
    return (c + (c.round() - c).detach()) * scale


def traced_dynamic(x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
    """The same where ranges are those of the values: the whole gradient passes, to ``x`` alone."""
    v = x / scale
    steps = clamp(v.round(), bounds.lower, bounds.upper)
    if torch.is_grad_enabled():
        steps = v + (steps - v).detach()
    return steps * scale


def damped(value: Tensor, factor: float) -> Tensor:
    """``value``, with its gradient times ``factor``."""
    held = value.detach()
    return held + (value - held) * factor


def _inside(grad: Tensor, v: Tensor, bounds: Bounds, out: Tensor) -> Tensor:
    if isinstance(bounds.lower, Tensor) or isinstance(bounds.upper, Tensor):
        return out.copy_(torch.where((v >= bounds.lower) & (v <= bounds.upper), grad, 0.0))
    # The one operator that selects in one pass; it leaves out its ends, so they are moved by one float.
    ends = _outside(bounds.lower, bounds.upper)
    torch.ops.aten.hardtanh_backward.grad_input(grad, v, *ends, grad_input=out)
    return out


@lru_cache(maxsize=1024)
def _outside(lower: float, upper: float) -> tuple[float, float]:
    ends = torch.tensor([lower, upper], dtype=torch.float32)
    lower, upper = torch.nextafter(ends, torch.tensor([-math.inf, math.inf])).tolist()
    return lower, upper


def sum_to(values: Tensor, scale: Tensor) -> Tensor:
    """Sums over what shares a scale, in the shape of ``scale``, which broadcasts with ``values``."""
    if scale.dim() == 0:
        return values.sum()
    return values.sum([axis for axis in range(values.dim()) if scale.shape[axis] == 1], keepdim=True)
