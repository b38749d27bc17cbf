"""Fake quantization with gradients, for training.

Forward is the arithmetic of ``qexp.quant.grid``, but that NaN passes through, so that a defect
reaches the loss.

Backward is the straight-through estimator: the gradient passes where ``x / scale`` lies inside the
bounds, ends included, and is zero outside. A learned scale gets the gradient of LSQ (Esser et al.
2020, "Learned Step Size Quantization", arXiv 1902.08153, equation 3), times its gradient scale
``1 / sqrt(N * qmax)`` with N the number of elements that share the scale.

Which kernels compute it is chosen for each call, see ``kernels_of``. Scales are tensors even where
they are one number: dividing a CUDA tensor by a Python number multiplies by the reciprocal, which
rounds differently.
"""

from __future__ import annotations

import math
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from qexp.quant import cpu_kernels, plain_kernels
from qexp.quant.bounds import Bounds
from qexp.quant.grid import Grid


class Kernels(Protocol):
    """What ``plain_kernels``, ``cpu_kernels`` and ``cuda_kernels`` offer; see the first for what it means."""

    HALVES: bool

    def forward(self, x: Tensor, scale: Tensor, bounds: Bounds, *, nan_low: bool = False) -> Tensor:
        """Values of the grid."""

    def backward(self, grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
        """Gradient of x."""

    def backward_learned(
        self, grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds
    ) -> tuple[Tensor, Tensor]:
        """Gradients of x and of the scale."""


_choice: Literal["auto", "plain"] = "auto"


def choose_kernels(choice: Literal["auto", "plain"]) -> None:
    """From now on, in this process: everything in plain torch, or the fastest way for each tensor."""
    global _choice
    _choice = choice


def kernels_of(x: Tensor, scale: Tensor) -> Kernels:
    """The fastest kernels that serve these tensors on this machine."""
    if _choice == "plain":
        return plain_kernels
    if x.is_cuda:
        return _cuda_kernels() or plain_kernels
    return cpu_kernels if cpu_kernels.available() and cpu_kernels.fits(x, scale) else plain_kernels


@cache
def _cuda_kernels() -> Kernels | None:
    """The Triton kernels; None where a CUDA build of torch comes without Triton."""
    if find_spec("triton") is None:
        return None
    from qexp.quant import cuda_kernels

    return cuda_kernels


class FakeQuantizeFrozen(torch.autograd.Function):
    """Fixed scale: straight-through gradient to ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bounds: Bounds, done: Tensor | None = None) -> Tensor:
        """Fake-quantize ``x``; ``scale`` broadcasts with it. ``done`` is the result, where it is known."""
        ctx.save_for_backward(x, scale)
        ctx.bounds = bounds
        return kernels_of(x, scale).forward(x, scale, bounds) if done is None else done.detach()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Pass the gradient inside the range."""
        x, scale = ctx.saved_tensors
        return kernels_of(x, scale).backward(grad_outputs[0], x, scale, ctx.bounds), None, None, None


class FakeQuantizeLearned(torch.autograd.Function):
    """Learned scale: straight-through gradient to ``x``, LSQ gradient to ``scale``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, bounds: Bounds, factor: float, done: Tensor | None = None
    ) -> Tensor:
        """As with a fixed scale; ``factor`` is LSQ's gradient scale."""
        ctx.save_for_backward(x, scale)
        ctx.bounds, ctx.factor = bounds, factor
        return kernels_of(x, scale).forward(x, scale, bounds) if done is None else done.detach()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Gradients of ``x`` and of ``scale``."""
        x, scale = ctx.saved_tensors
        passed, total = kernels_of(x, scale).backward_learned(grad_outputs[0], x, scale, ctx.bounds)
        return passed, total * ctx.factor, None, None, None


def gradient_scale(elements: int, grid: Grid) -> float:
    """LSQ's factor on a scale's gradient, for a scale that ``elements`` values share (section 2.2)."""
    return 1.0 / math.sqrt(max(elements, 1) * grid.qmax)
