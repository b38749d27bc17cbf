"""Fake quantization with gradients, for training.

Forward is the arithmetic of ``qexp.quant.grid`` in one allocation, with two differences that no
finite loss can see: NaN passes through, and a zero may carry a sign.

Backward is the straight-through estimator: the gradient passes where ``x`` lies inside the range
that the grid represents, ends included, and is zero outside. A learned scale gets the gradient of
LSQ (Esser et al. 2020, "Learned Step Size Quantization", arXiv 1902.08153, equation 3), times its
gradient scale ``1 / sqrt(N * qmax)`` with N the number of elements that share the scale.

Scales are tensors even where they are one number: dividing a CUDA tensor by a Python number
multiplies by the reciprocal, which rounds differently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qexp.quant.grid import Grid, clamp_, divide


@dataclass(frozen=True)
class Bounds:
    """Ends of the representable range.

    ``lower`` and ``upper`` count steps from zero (``qmin - zero_point``, ``qmax - zero_point``):
    numbers, or tensors that broadcast with x where zero points differ. The gradient passes strictly
    between the numbers ``inside``, each one float32 outside its end: in units of x with ``in_values``,
    else in steps from zero, or from ``lower`` where that is a tensor.
    """

    lower: float | Tensor
    upper: float | Tensor
    inside: tuple[float, float]
    in_values: bool = False

    @classmethod
    def of(cls, grid: Grid, zero_point: Tensor, *, dimensions: int) -> Bounds:
        """Bounds in steps, for tensors of so many dimensions. Reads a per-tensor zero point once."""
        if zero_point.dim() == 0 or grid.symmetric:
            zero = 0 if grid.symmetric else int(zero_point)
            lower, upper = float(grid.qmin - zero), float(grid.qmax - zero)
            return cls(lower, upper, _outside(lower, upper))
        zeros = grid.expand(zero_point, dimensions)
        inside = _outside(0.0, float(grid.qmax - grid.qmin))
        return cls((grid.qmin - zeros).float(), (grid.qmax - zeros).float(), inside)

    def in_units_of_x(self, scale: Tensor) -> Bounds:
        """The same with ``inside`` in units of x where there is one scale; reads the scale's value."""
        if scale.dim() != 0 or not isinstance(self.lower, float) or not isinstance(self.upper, float):
            return self
        value = float(scale.detach())
        inside = _outside(self.lower * value, self.upper * value)
        return Bounds(self.lower, self.upper, inside, in_values=True)


def _outside(low: float, high: float) -> tuple[float, float]:
    ends = torch.tensor([low, high], dtype=torch.float32)
    low, high = torch.nextafter(ends, torch.tensor([-math.inf, math.inf])).tolist()
    return low, high


class FakeQuantizeFrozen(torch.autograd.Function):
    """Fixed scale: straight-through gradient to ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
        """Fake-quantize ``x``; ``scale`` broadcasts with it."""
        ctx.save_for_backward(x, scale)
        ctx.bounds = bounds
        return _round_trip(x, scale, bounds)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Pass the gradient inside the range."""
        x, scale = ctx.saved_tensors
        return _inside(grad_outputs[0], x, scale, ctx.bounds), None, None


class FakeQuantizeLearned(torch.autograd.Function):
    """Learned scale: straight-through gradient to ``x``, LSQ gradient to ``scale``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bounds: Bounds, gradient_scale: float) -> Tensor:
        """Fake-quantize ``x``; ``scale`` broadcasts with it and has its number of dimensions, or none."""
        y = _round_trip(x, scale, bounds)
        ctx.save_for_backward(x, scale, y)
        ctx.bounds, ctx.gradient_scale = bounds, gradient_scale
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Gradients of ``x`` and of ``scale``.

        With ``y = round(v) * scale`` and ``v = x / scale`` clamped, LSQ's derivative is
        ``(y - x) / scale`` inside and ``y / scale`` outside, so that the sum over elements is
        ``(<grad, y> - <grad inside, x>) / scale``: two inner products, no further tensor.
        """
        x, scale, y = ctx.saved_tensors
        grad = grad_outputs[0]
        # Reading one number of a CPU tensor is cheaper than a division of all of x; elsewhere it waits.
        bounds = ctx.bounds.in_units_of_x(scale) if scale.device.type == "cpu" else ctx.bounds
        passed = _inside(grad, x, scale, bounds)
        inner = _inner if scale.dim() == 0 else _inner_per_channel
        total = inner(grad, y, passed, x, scale)
        return passed, total.mul_(ctx.gradient_scale).div_(scale), None, None


def gradient_scale(elements: int, grid: Grid) -> float:
    """LSQ's factor on a scale's gradient, for a scale that ``elements`` values share (section 2.2)."""
    return 1.0 / math.sqrt(max(elements, 1) * grid.qmax)


def _round_trip(x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
    return clamp_(divide(x, scale).round_(), bounds.lower, bounds.upper).mul_(scale)


def _inside(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
    """The gradient where ``x`` lies inside, 0 elsewhere, in the layout of ``x``."""
    v = x if bounds.in_values else x.div(scale)
    if isinstance(bounds.lower, Tensor):
        v.sub_(bounds.lower)
    passed = torch.empty_like(x)
    torch.ops.aten.hardtanh_backward.grad_input(grad, v, *bounds.inside, grad_input=passed)
    return passed


def _inner(grad: Tensor, y: Tensor, passed: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """``<grad, y> - <passed, x>``."""
    return _dot(grad, y) - _dot(passed, x)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    if a.dim() == 4 and not (a.is_contiguous() and b.is_contiguous()):
        a, b = a.transpose(1, 2), b.transpose(1, 2)  # heads of attention, as they lie in memory
    if a.is_contiguous() and b.is_contiguous():
        return torch.dot(a.view(-1), b.view(-1))
    return (a * b).sum()


def _inner_per_channel(grad: Tensor, y: Tensor, passed: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """As ``_inner``, for each index of the axis along which ``scale`` varies."""
    others = [axis for axis in range(x.dim()) if scale.shape[axis] == 1]
    return (grad * y).addcmul_(passed, x, value=-1).sum(others, keepdim=True)
