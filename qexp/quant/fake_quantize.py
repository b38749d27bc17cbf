"""Fake quantization with gradients, for training.

The forward pass uses the arithmetic of ``qexp.quant.grid``, except that NaN passes through, so that a defect
reaches the loss.

The backward pass is the straight-through estimator: the gradient passes where ``x / scale`` lies inside
``Bounds.passing``, ends included, and is zero outside. A learned scale gets the gradient of LSQ (Esser et al.
2020, "Learned Step Size Quantization", arXiv 1902.08153, equation 3), times its gradient scale
``1 / sqrt(N * qmax)``, where N is the number of elements that share the scale. A learned zero point gets the
gradient of LSQ+'s offset (Bhalgat et al. 2020, arXiv 2004.09576), which is ``-scale`` times the zero point:
zero where ``x`` lies inside the range, the full gradient where it is clipped, with the same gradient scale.

``kernels_of`` selects the kernels for each call. A scale is a tensor even if it is a single number: dividing
a CUDA tensor by a Python number multiplies by the reciprocal, which rounds differently.
"""

from __future__ import annotations

import math
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from qexp.custom_ops import dynamic_qparams
from qexp.quant.bounds import Bounds
from qexp.quant.float_grid import BlockGrid
from qexp.quant.grid import AnyGrid, Grid
from qexp.quant.kernels import cpu, reference
from qexp.quant.kernels.reference import sum_to, traced_dynamic


class Kernels(Protocol):
    """Interface of the modules ``reference``, ``cpu`` and ``cuda``; ``reference`` defines the semantics."""

    HALVES: bool

    def forward(self, x: Tensor, scale: Tensor, bounds: Bounds, *, nan_low: bool = False) -> Tensor:
        """Return ``x`` rounded to values of the grid."""

    def backward(self, grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
        """Return the gradient of ``x``; ``bounds`` are those between which it passes."""

    def backward_learned(
        self, grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of ``x`` and of ``scale``; ``bounds`` round to those of the grid."""


_choice: Literal["auto", "plain"] = "auto"


def choose_kernels(choice: Literal["auto", "plain"]) -> None:
    """Select plain torch for everything, or the fastest kernels for each tensor, process-wide."""
    global _choice
    _choice = choice


def kernels_of(x: Tensor, scale: Tensor, bounds: Bounds | None = None) -> Kernels:
    """Return the fastest kernels that support these tensors, and bounds of floats, on this machine."""
    if _choice == "plain" or (bounds is not None and bounds.element is not None):
        return reference
    if x.is_cuda:
        return _cuda_kernels() or reference
    return cpu if cpu.available() and cpu.fits(x, scale) else reference


@cache
def _cuda_kernels() -> Kernels | None:
    """Return the Triton kernels, or None if Triton is not installed, as in some CUDA builds of torch."""
    if find_spec("triton") is None:
        return None
    from qexp.quant.kernels import cuda

    return cuda


class FakeQuantizeFrozen(torch.autograd.Function):
    """Fake quantization with a fixed scale and a straight-through gradient to ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bounds: Bounds, done: Tensor | None = None) -> Tensor:
        """Fake-quantize ``x``; ``scale`` broadcasts with it, ``done`` is the result if already computed.

        Of an activation only which values are inside the range is kept; a weight is there anyway.
        """
        kernels = kernels_of(x, scale, bounds)
        ctx.bounds = bounds
        if done is None and kernels is cpu and not x.is_leaf:
            y, inside = cpu.forward_inside(x, scale, bounds)
            ctx.save_for_backward(inside)
            return y
        ctx.save_for_backward(x, scale)
        return kernels.forward(x, scale, bounds) if done is None else done.detach()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return the gradient of ``x``: the incoming one inside the range, zero outside."""
        (grad,) = grad_outputs
        if len(ctx.saved_tensors) == 1:
            return torch.where(ctx.saved_tensors[0], grad, 0.0), None, None, None
        x, scale = ctx.saved_tensors
        passing = ctx.bounds.passing
        return kernels_of(x, scale, passing).backward(grad, x, scale, passing), None, None, None


class FakeQuantizeLearned(torch.autograd.Function):
    """Fake quantization with a learned scale, and possibly a learned zero point.

    The gradient is straight-through for ``x``, LSQ's for ``scale`` and LSQ+'s for ``zero``.
    """

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
        """Fake-quantize ``x``, as ``FakeQuantizeFrozen`` does.

        Args:
            ctx: Context of autograd.
            x: Values to quantize.
            scale: Scale that broadcasts with ``x``.
            bounds: Bounds for the zero point in use.
            factor: LSQ's gradient scale, applied to the gradient of ``scale``.
            done: The result if it is already computed.
            zero: Learned zero point in the shape of ``scale``, or None. Its gradient is not scaled here.
        """
        ctx.save_for_backward(x, scale)
        ctx.bounds, ctx.factor, ctx.moves = bounds, factor, zero is not None
        return kernels_of(x, scale, bounds).forward(x, scale, bounds) if done is None else done.detach()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return the gradients of ``x``, ``scale`` and ``zero``."""
        x, scale = ctx.saved_tensors
        (grad,) = grad_outputs
        passing = ctx.bounds.passing
        passed, total = kernels_of(x, scale, passing).backward_learned(grad, x, scale, passing)
        clipped = -scale * sum_to((grad - passed).float(), scale) if ctx.moves else None
        return passed, total * ctx.factor, None, None, None, clipped


class FakeQuantizeDynamic(torch.autograd.Function):
    """Fake quantization with ranges taken from the values themselves.

    No value lies outside its range, so the whole gradient passes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
        """Fake-quantize ``x``; ``scale`` broadcasts with it."""
        return kernels_of(x, scale, bounds).forward(x, scale, bounds)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return the incoming gradient unchanged."""
        return grad_outputs[0], None, None


def fake_quantize_dynamic(x: Tensor, grid: Grid, *, plain: bool = False) -> Tensor:
    """Fake-quantize values with the range of the tensor, or of each token, the values along the last axis.

    Args:
        x: Values [..., values].
        grid: Dynamic grid that each range is mapped to, by :func:`qexp.custom_ops.dynamic_qparams`.
        plain: Whether to use plain arithmetic, which a compiler can trace.
    """
    tokens, symmetric = grid.dynamic == "token", grid.symmetric
    scale, zero = dynamic_qparams(x, tokens=tokens, symmetric=symmetric, qmin=grid.qmin, qmax=grid.qmax)
    bounds = Bounds.around(grid, zero)
    if plain:
        return traced_dynamic(x.float(), scale, bounds).to(x.dtype)
    kernels = kernels_of(x, scale, bounds)
    if x.dtype is not torch.float32 and not kernels.HALVES:
        return fake_quantize_dynamic(x.float(), grid).to(x.dtype)
    if not torch.is_grad_enabled():
        return kernels.forward(x, scale, bounds, nan_low=True)
    return FakeQuantizeDynamic.apply(x, scale, bounds)  # type: ignore[no-any-return,no-untyped-call]


class FakeQuantizeBlocks(torch.autograd.Function):
    """Fake quantization to floats that share scales in blocks, found from the values.

    The whole gradient passes: nothing is clipped but what lies beyond a calibrated range of the tensor.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, grid: BlockGrid, done: Tensor | None = None) -> Tensor:
        """Fake-quantize ``x``; ``scale`` is that of the tensor, ``done`` is the result if there is one."""
        return grid.fake_quantize(x, scale) if done is None else done.detach()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return the incoming gradient unchanged."""
        return grad_outputs[0], None, None, None


def gradient_scale(elements: int, grid: AnyGrid) -> float:
    """Return LSQ's gradient scale for a scale that ``elements`` values share (section 2.2)."""
    return 1.0 / math.sqrt(max(elements, 1) * grid.qmax)
