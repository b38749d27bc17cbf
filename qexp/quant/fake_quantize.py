"""Fake quantization with gradients, for training.

Forward is the arithmetic of ``qexp.quant.grid``, but that NaN passes through, so that a defect
reaches the loss.

Backward is the straight-through estimator: the gradient passes where ``x / scale`` lies inside the
bounds, ends included, and is zero outside. A learned scale gets the gradient of LSQ (Esser et al.
2020, "Learned Step Size Quantization", arXiv 1902.08153, equation 3), times its gradient scale
``1 / sqrt(N * qmax)`` with N the number of elements that share the scale. A learned zero point gets
that of LSQ+'s offset (Bhalgat et al. 2020, arXiv 2004.09576), which is ``-scale`` times the
zero point: nothing where ``x`` lies inside, all where it is clipped; with the same gradient scale.

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

from qexp.quant.bounds import Bounds
from qexp.quant.grid import Grid, covering
from qexp.quant.kernels import cpu, reference
from qexp.quant.kernels.reference import sum_to, traced_dynamic
from qexp.quant.minmax import token_ends


class Kernels(Protocol):
    """What ``reference``, ``cpu`` and ``cuda`` offer; see the first for what it means."""

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
        return reference
    if x.is_cuda:
        return _cuda_kernels() or reference
    return cpu if cpu.available() and cpu.fits(x, scale) else reference


@cache
def _cuda_kernels() -> Kernels | None:
    """The Triton kernels; None where a CUDA build of torch comes without Triton."""
    if find_spec("triton") is None:
        return None
    from qexp.quant.kernels import cuda

    return cuda


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
    """Learned scale: straight-through gradient to ``x``, LSQ gradient to ``scale``, LSQ+'s to ``zero``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        bounds: Bounds,
        factor: float,
        done: Tensor | None = None,
        zero: Tensor | None = None,
    ) -> Tensor:
        """As with a fixed scale.

        Args:
            ctx: of autograd.
            x: values.
            scale: broadcasts with ``x``.
            bounds: of the zero point.
            factor: LSQ's gradient scale, on the gradient of ``scale``.
            done: the result, where it is known.
            zero: the zero point, if it is learned, in the shape of ``scale``; its gradient is not scaled.
        """
        ctx.save_for_backward(x, scale)
        ctx.bounds, ctx.factor, ctx.moves = bounds, factor, zero is not None
        return kernels_of(x, scale).forward(x, scale, bounds) if done is None else done.detach()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Gradients of ``x``, of ``scale`` and of ``zero``."""
        x, scale = ctx.saved_tensors
        (grad,) = grad_outputs
        passed, total = kernels_of(x, scale).backward_learned(grad, x, scale, ctx.bounds)
        clipped = -scale * sum_to((grad - passed).float(), scale) if ctx.moves else None
        return passed, total * ctx.factor, None, None, None, clipped


class FakeQuantizeDynamic(torch.autograd.Function):
    """Ranges of the values themselves: as none lies outside, the whole gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
        """Fake-quantize ``x``; ``scale`` broadcasts with it."""
        return kernels_of(x, scale).forward(x, scale, bounds)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Pass the gradient."""
        return grad_outputs[0], None, None


def fake_quantize_tokens(x: Tensor, grid: Grid, *, plain: bool = False) -> Tensor:
    """Each token's values, along the last axis, on a range of their own.

    Args:
        x: [..., values].
        grid: what a range is mapped to.
        plain: in plain arithmetic, for what traces it: a compiler or an exporter.
    """
    scale, zero_point = covering(*token_ends(x), grid)
    bounds = Bounds.around(grid, zero_point)
    if plain:
        return traced_dynamic(x.float(), scale, bounds).to(x.dtype)
    kernels = kernels_of(x, scale)
    if x.dtype is not torch.float32 and not kernels.HALVES:
        return fake_quantize_tokens(x.float(), grid).to(x.dtype)
    if not torch.is_grad_enabled():
        return kernels.forward(x, scale, bounds, nan_low=True)
    return FakeQuantizeDynamic.apply(x, scale, bounds)  # type: ignore[no-any-return,no-untyped-call]


def gradient_scale(elements: int, grid: Grid) -> float:
    """LSQ's factor on a scale's gradient, for a scale that ``elements`` values share (section 2.2)."""
    return 1.0 / math.sqrt(max(elements, 1) * grid.qmax)
