"""Fake quantization as ``torch.compile`` can see through it: tensors only, nothing remembered.

The arithmetic and the gradients are those of ``qexp.quant.fake_quantize``; a compiler fuses them with their
neighbours, and may divide or round in another order. Computes in FP32 whatever comes in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qexp.quant.grid import Grid


class TracedFakeQuantize(torch.autograd.Function):
    """Straight-through gradient to ``x``; LSQ gradient to a scale that requires one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, lower: Tensor, upper: Tensor, factor: float) -> Tensor:
        """Fake-quantize ``x``; ``scale`` and the ends, in steps from zero, broadcast with it."""
        y = torch.clamp(torch.round(x / scale), lower, upper) * scale
        ctx.save_for_backward(x, scale, lower, upper, y)
        ctx.factor = factor
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Gradients of ``x`` and of ``scale``: see ``FakeQuantizeLearned``."""
        x, scale, lower, upper, y = ctx.saved_tensors
        grad, v = grad_outputs[0], x / scale
        passed = torch.where((v >= lower) & (v <= upper), grad, 0.0)
        if not ctx.needs_input_grad[1]:
            return passed, None, None, None, None
        others = [axis for axis in range(x.dim()) if scale.dim() == 0 or scale.shape[axis] == 1]
        total = (grad * y - passed * x).sum(others, keepdim=scale.dim() > 0)
        return passed, total * ctx.factor / scale, None, None, None


def traced_fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid, parts: int) -> Tensor:
    """Fake-quantize ``x``, one of so many ``parts`` of its batch, with gradients.

    Args:
        x: any shape.
        scale: of the shape of ``zero_point``; its gradient is LSQ's.
        zero_point: one number, or one for each channel.
        grid: where to.
        parts: see ``Quantization.learn``.
    """
    zero = grid.expand(zero_point, x.dim()).float()
    spread = grid.expand(scale, x.dim())
    factor = (x.numel() * parts // scale.numel() * grid.qmax) ** -0.5
    y: Tensor = TracedFakeQuantize.apply(x.float(), spread, grid.qmin - zero, grid.qmax - zero, factor)  # type: ignore[no-untyped-call]
    return y.to(x.dtype)
