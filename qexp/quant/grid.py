"""Integer grids, and the arithmetic of QuantizeLinear and DequantizeLinear.

    q  = clamp(round_half_even(x / scale) + zero_point, qmin, qmax)
    x' = (q - zero_point) * scale

Results are bit-identical to those of ONNX Runtime's CPU kernels: a true division in float32, ties to even,
and no negative zero.

The ONNX specification leaves the result for NaN open. ONNX Runtime is deterministic, in its vectorized loops
and in their tails, on x86-64 and on ARM: NaN becomes the lowest value of the integer type. The functions of
this module do the same with the grid's ``qmin``. Training (``qexp.quant.fake_quantize``) propagates NaN
instead, so that a defect reaches the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qexp.config import FLOAT_BITS, ActivationScheme, NumberFormat, ValueType, WeightScheme
from qexp.errors import QuantizationError
from qexp.quant.float_grid import BlockGrid, FloatGrid, float_grid
from qexp.quant.range_layout import RangeLayout

SMALLEST_SCALE = torch.finfo(torch.float32).tiny
"""Smallest normal float32, the lower bound of every scale."""


@dataclass(frozen=True)
class Grid(RangeLayout):
    """A set of integers, and the axis of a tensor that has a range for each index.

    Raises:
        QuantizationError: If ``bits`` is not in 2 to 16, a narrow or full grid is asymmetric or unsigned, or
            it is both, or blocks are not of axis 0.
    """

    bits: int
    """Bit-width, 2 to 16."""
    signed: bool
    """Whether the integers go below zero."""
    symmetric: bool
    """Whether the zero point is 0."""
    narrow: bool = False
    """Whether a signed grid omits its lowest integer, which makes it symmetric around zero."""
    full: bool = False
    """Whether the range of a symmetric grid ends at ``qmin * scale``, not at ``-qmax * scale``."""
    axis: int | None = None
    """Axis with a range for each index; None means one range for the whole tensor."""
    block: int | None = None
    """Number of neighbours along the last axis of a matrix that share a range within an index of axis 0; None
    means all of them. Scales and zero points are flat, [rows * columns / block]."""
    dynamic: Literal["tensor", "token"] | None = None
    """Whether a tensor, or each of its tokens (an index of all axes but the last), takes its range from its
    own values at run time; None means a fixed range."""

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise QuantizationError(f"grid of {self.bits} bits: allowed are 2 to 16")
        if self.narrow and not (self.signed and self.symmetric):
            raise QuantizationError("narrow grid: only a signed, symmetric grid can be narrow")
        if self.full and (self.narrow or not (self.signed and self.symmetric)):
            raise QuantizationError("full grid: only a signed, symmetric grid that is not narrow can be full")
        if self.block is not None and self.axis != 0:
            raise QuantizationError(
                f"grid in blocks of {self.block} with axis {self.axis}: only axis 0 has some"
            )

    @property
    def qmin(self) -> int:
        """Lowest integer of the grid."""
        return int(self.narrow) - (1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Highest integer of the grid."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1


AnyGrid = Grid | FloatGrid | BlockGrid
"""Grid of integers, or of floats of 4 or 8 bits."""


def weight_grid(
    bits: int, scheme: WeightScheme, *, axis: int = 0, number_format: NumberFormat | None = None
) -> AnyGrid | None:
    """Return the grid of a weight with output channels on ``axis``, or None if it stays in floating point."""
    if bits == FLOAT_BITS:
        return None
    channel = axis if scheme.granularity == "per_channel" else None
    if number_format is not None:
        return float_grid(number_format, channel)
    symmetric, narrow, full = scheme.symmetric, scheme.narrow, scheme.range == "full"
    return Grid(
        bits,
        signed=symmetric,
        symmetric=symmetric,
        narrow=narrow and symmetric,
        full=full and symmetric,
        axis=channel,
        block=scheme.group_size,
    )


def activation_grid(
    bits: int,
    scheme: ActivationScheme,
    values: ValueType = "act",
    *,
    axis: int | None = None,
    number_format: NumberFormat | None = None,
) -> AnyGrid | None:
    """Return the grid of an activation, or None if it stays in floating point.

    The grid is per tensor, dynamic, or has a range for each index of ``axis``. One of integers is unsigned,
    even if symmetric, where no value can be negative.
    """
    if bits == FLOAT_BITS:
        return None
    if number_format is not None:
        return float_grid(number_format)
    signed = scheme.symmetric and values == "act"
    narrow, dynamic = scheme.narrow and signed, scheme.dynamic
    return Grid(bits, signed=signed, symmetric=scheme.symmetric, narrow=narrow, axis=axis, dynamic=dynamic)


def scale_and_zero_point(low: Tensor, high: Tensor, grid: AnyGrid) -> tuple[Tensor, Tensor]:
    """Return the scale (float32) and zero point (int32) that cover ``[low, high]``, in the shape of ``low``.

    A symmetric grid covers the larger magnitude: ``scale = max(|low|, |high|) / qmax``, or with ``full``
    both ends: ``scale = max(low / qmin, high / qmax)``. Any other grid covers the range widened to contain 0.
    An all-zero range has scale 1; a scale is never below the smallest normal float32. The computation is in
    float64 and rounds once.

    Raises:
        QuantizationError: If a bound is infinite or NaN, or ``low > high``.
    """
    low, high = low.to(torch.float64), high.to(torch.float64)
    if not bool(torch.isfinite(low).all() and torch.isfinite(high).all() and (low <= high).all()):
        raise QuantizationError(
            f"range [{low.tolist()}, {high.tolist()}]: bounds must be finite and ordered; look for NaN or "
            "infinity in the weights or activations that it was taken from"
        )
    return compute_qparams(low, high, grid)


def compute_qparams(low: Tensor, high: Tensor, grid: AnyGrid) -> tuple[Tensor, Tensor]:
    """Return scale and zero point as ``scale_and_zero_point`` does, without validation.

    A NaN bound makes the scale NaN.
    """
    low, high = low.to(torch.float64).clamp(max=0.0), high.to(torch.float64).clamp(min=0.0)
    if grid.symmetric:
        lowest = grid.qmin if grid.full else -grid.qmax
        reach = torch.maximum(low / lowest, high / grid.qmax) if grid.signed else high / grid.qmax
        scale = _positive(reach)
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    scale = _positive((high - low) / (grid.qmax - grid.qmin))
    zero_point = torch.round(grid.qmin - low / scale.to(torch.float64)).clamp(grid.qmin, grid.qmax)
    return scale, zero_point.to(torch.int32)


def range_of_qparams(scale: Tensor, zero_point: Tensor, grid: AnyGrid) -> Tensor:
    """Return the range, float64 [2, ...], for which ``compute_qparams`` returns these qparams."""
    zero = zero_point.to(torch.float64)
    lowest = -grid.qmax if grid.symmetric and grid.signed and not grid.full else grid.qmin
    return torch.stack([lowest - zero, grid.qmax - zero]) * scale.to(torch.float64)


def _positive(scale: Tensor) -> Tensor:
    rounded = scale.to(torch.float32).clamp(min=SMALLEST_SCALE, max=torch.finfo(torch.float32).max)
    return torch.where(scale == 0, torch.ones_like(rounded), rounded)


def steps(x: Tensor, scale: Tensor, lower: float | Tensor, upper: float | Tensor) -> Tensor:
    """Return whole steps from zero, ``clamp(round(x / scale), lower, upper)``, as a new float tensor.

    ``lower`` is ``qmin - zero_point`` and ``upper`` is ``qmax - zero_point``. Clamping relative to zero
    gives the same integers and saves adding the zero point. ``scale`` broadcasts with ``x``. NaN becomes
    ``lower``.
    """
    v = divide(x, scale).round_()
    v.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return clamp_(v, lower, upper)


def clamp_(v: Tensor, lower: float | Tensor, upper: float | Tensor) -> Tensor:
    """Clamp ``v`` in place; both bounds are numbers or both are tensors."""
    if isinstance(lower, Tensor) and isinstance(upper, Tensor):
        return v.clamp_(lower, upper)
    assert not isinstance(lower, Tensor)
    assert not isinstance(upper, Tensor)
    return v.clamp_(lower, upper)


def clamp(v: Tensor, lower: float | Tensor, upper: float | Tensor) -> Tensor:
    """Clamp into a new tensor, differentiably; the gradient passes at the bounds themselves."""
    return v.clamp(lower, upper)  # type: ignore[arg-type]


def divide(x: Tensor, scale: Tensor) -> Tensor:
    """Return ``x / scale`` as a new contiguous tensor, whatever the layout of ``x``, without a gradient.

    Attention heads arrive as a transposed view. The matmul after the quantizer would copy a result of that
    layout; dividing directly into a contiguous tensor saves the copy.
    """
    if x.is_contiguous():
        return x.div(scale)
    return torch.div(x, scale, out=torch.empty(x.shape, dtype=x.dtype, device=x.device))


@torch.no_grad()
def quantize_dequantize(x: Tensor, scale: Tensor, lower: float | Tensor, upper: float | Tensor) -> Tensor:
    """Fake-quantize ``x`` with bounds in steps from zero, see ``steps``; without a gradient."""
    return (
        steps(x, scale, lower, upper).mul_(scale).add_(0.0)
    )  # adding 0 turns -0 into 0, as integers have no -0


@torch.no_grad()
def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    """Return ``x`` as integers of the grid, int32, in the shape of ``x``."""
    values = grid.in_blocks(x)
    scale, zero = grid.expand(scale, values.dim()), grid.expand(zero_point, values.dim())
    lower, upper = (grid.qmin - zero).to(x.dtype), (grid.qmax - zero).to(x.dtype)
    return (steps(values, scale, lower, upper).to(torch.int32) + zero.to(torch.int32)).reshape(x.shape)


def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    """Return the float32 values that integers of the grid represent."""
    integers = grid.in_blocks(q).to(torch.int32)
    scale, zero = (grid.expand(each, integers.dim()) for each in (scale, zero_point))
    return ((integers - zero.to(torch.int32)).to(torch.float32) * scale).reshape(q.shape)


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    """Return the values of the grid nearest to ``x``: ``dequantize(quantize(x))``."""
    return dequantize(quantize(x, scale, zero_point, grid), scale, zero_point, grid)
