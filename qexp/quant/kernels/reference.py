"""Fake quantization and its gradients in plain torch, the reference for all other kernels.

It is the fallback without a C compiler, and for devices and dtypes that have no kernel. ``traced`` is for
``torch.compile``, which needs to see the arithmetic to fuse it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from qexp.quant.bounds import Bounds
from qexp.quant.grid import clamp, clamp_, divide, quantize_dequantize

HALVES = False
"""Whether the kernels accept 16-bit floats, while computing in float32."""


def forward(x: Tensor, scale: Tensor, bounds: Bounds, *, nan_low: bool = False) -> Tensor:
    """Return the values of the grid nearest to ``x``.

    NaN stays NaN, or becomes the lowest integer with ``nan_low``; among floats it always stays. The result is
    contiguous whatever the layout of ``x``.
    """
    if nan_low and bounds.element is None:
        return quantize_dequantize(x, scale, bounds.lower, bounds.upper)
    return clamp_(bounds.round_(divide(x, scale)), bounds.lower, bounds.upper).mul_(scale)


def backward(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
    """Return ``grad`` where ``x / scale`` lies inside the bounds, ends included, else 0, in x's layout."""
    return _inside(grad, x.div(scale), bounds, torch.empty_like(x))


def backward_learned(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Return the gradient of ``x`` as ``backward`` does, and the gradient of ``scale``.

    The latter is the sum of ``grad * d y / d scale`` over the values of each scale, in the shape of
    ``scale``.

    LSQ's derivative is ``round(v) - v`` inside the bounds, where ``v = x / scale``, and the bound outside,
    rounded to an end of the grid.
    """
    v = x.div(scale)
    passed = _inside(grad, v, bounds, torch.empty_like(x))
    steps = bounds.round_(clamp_(v.clone(), bounds.lower, bounds.upper))
    return passed, sum_to(steps.mul_(grad).addcmul_(passed, v, value=-1), scale)


def traced(x: Tensor, scale: Tensor, bounds: Bounds, factor: float) -> Tensor:
    """Fake-quantize with differentiable operators only; ``factor`` applies to the gradient of ``scale``.

    The forward result is bit-identical to ``forward``: ``c + (round(c) - c)`` is exactly ``round(c)``,
    because the difference of two floats this close is exact, and ``scale + 0`` is ``scale``.
    """
    scale, passing = damped(scale, factor), bounds.passing
    c = clamp(x / scale, passing.lower, passing.upper)
    return (c + (bounds.round_(c.detach().clone()) - c).detach()) * scale


def traced_dynamic(x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
    """Fake-quantize as ``traced`` does, with ranges taken from the values.

    The whole gradient passes, to ``x`` alone.
    """
    v = x / scale
    steps = clamp(v.round(), bounds.lower, bounds.upper)
    if torch.is_grad_enabled():
        steps = v + (steps - v).detach()
    return steps * scale


def damped(value: Tensor, factor: float) -> Tensor:
    """Return ``value`` with its gradient multiplied by ``factor``."""
    detached = value.detach()
    return detached + (value - detached) * factor


def _inside(grad: Tensor, v: Tensor, bounds: Bounds, out: Tensor) -> Tensor:
    if isinstance(bounds.lower, Tensor) or isinstance(bounds.upper, Tensor):
        return out.copy_(torch.where((v >= bounds.lower) & (v <= bounds.upper), grad, 0.0))
    # The only operator that masks in one pass. It excludes its ends, so they are moved outward by one float.
    ends = _outside(bounds.lower, bounds.upper)
    torch.ops.aten.hardtanh_backward.grad_input(grad, v, *ends, grad_input=out)
    return out


@lru_cache(maxsize=1024)
def _outside(lower: float, upper: float) -> tuple[float, float]:
    ends = torch.tensor([lower, upper], dtype=torch.float32)
    lower, upper = torch.nextafter(ends, torch.tensor([-math.inf, math.inf])).tolist()
    return lower, upper


def sum_to(values: Tensor, scale: Tensor) -> Tensor:
    """Sum ``values`` to the shape of ``scale``, which broadcasts with ``values``."""
    if scale.dim() == 0:
        return values.sum()
    return values.sum([axis for axis in range(values.dim()) if scale.shape[axis] == 1], keepdim=True)
