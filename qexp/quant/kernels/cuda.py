"""Fake quantization and its gradients on CUDA, in Triton: one pass over memory each.

Forward reads x and writes y; the gradient of a frozen range reads x and the incoming gradient and
writes one tensor; a learned range adds each program's part of the scale's gradient in the same pass,
and a second, small sum adds the parts: in a fixed order, so that two runs give the same bits.

The arithmetic is float32 whatever the type of x, with a correctly rounded division, in the order of
``qexp.quant.grid``: forward results are the same bits as ``reference`` (a zero carries no sign).
Because the ends of a grid are whole numbers, clamping before rounding gives the same as after it, and
rounding to even of what is left is an addition and a subtraction of 1.5 * 2**23.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from qexp.quant.bounds import Bounds
from qexp.quant.kernels import reference

BLOCK = 1024
"""Elements of one program."""
HALVES = True


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _place(index, sizes_1, sizes_2, sizes_3, s0, s1, s2, s3, FLAT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where element ``index`` of a tensor, counted in its logical order, lies in memory."""
    if FLAT:
        return index
    i3, rest = index % sizes_3, index // sizes_3
    i2, rest = rest % sizes_2, rest // sizes_2
    return (rest // sizes_1) * s0 + (rest % sizes_1) * s1 + i2 * s2 + i3 * s3


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _steps(v, lower, upper):  # type: ignore[no-untyped-def]
    """``clamp(round(v), lower, upper)``; NaN passes through."""
    v = tl.where(v < lower, lower, v)
    v = tl.where(v > upper, upper, v)
    return (v + 12582912.0) - 12582912.0


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _forward(  # type: ignore[no-untyped-def]
    x_at, y_at, scale_at, lower_at, upper_at, total, inner, channels,
    n1, n2, n3, s0, s1, s2, s3,
    FLAT: tl.constexpr, NAN_LOW: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    there = index < total
    channel = (index // inner) % channels
    scale = tl.load(scale_at + channel, mask=there, other=1.0)
    lower = tl.load(lower_at + channel, mask=there, other=0.0)
    upper = tl.load(upper_at + channel, mask=there, other=0.0)
    x = tl.load(x_at + _place(index, n1, n2, n3, s0, s1, s2, s3, FLAT), mask=there, other=0.0)
    v = tl.div_rn(x.to(tl.float32), scale)
    if NAN_LOW:
        v = tl.where(v == v, v, lower)
    y = _steps(v, lower, upper) * scale + 0.0
    tl.store(y_at + index, y.to(y_at.dtype.element_ty), mask=there)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _backward(  # type: ignore[no-untyped-def]
    x_at, grad_at, out_at, sums_at, scale_at, lower_at, upper_at, total, inner, channels,
    n1, n2, n3, s0, s1, s2, s3, g0, g1, g2, g3,
    FLAT: tl.constexpr, LEARNED: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Program (p, c) takes the p-th block of channel c's elements where ranges are learned, else of all."""
    within = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    if LEARNED:
        there = within < total // channels
        index = (within // inner * channels + tl.program_id(1)) * inner + within % inner
    else:
        there = within < total
        index = within
    channel = (index // inner) % channels
    scale = tl.load(scale_at + channel, mask=there, other=1.0)
    lower = tl.load(lower_at + channel, mask=there, other=0.0)
    upper = tl.load(upper_at + channel, mask=there, other=0.0)
    place = _place(index, n1, n2, n3, s0, s1, s2, s3, FLAT)
    grad = tl.load(grad_at + _place(index, n1, n2, n3, g0, g1, g2, g3, FLAT), mask=there, other=0.0)
    v = tl.div_rn(tl.load(x_at + place, mask=there, other=0.0).to(tl.float32), scale)
    passed = tl.where((v >= lower) & (v <= upper), grad.to(tl.float32), 0.0)
    tl.store(out_at + place, passed.to(out_at.dtype.element_ty), mask=there)
    if LEARNED:
        part = tl.sum(grad.to(tl.float32) * _steps(v, lower, upper) - passed * v, axis=0)
        tl.store(sums_at + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), part)


def forward(x: Tensor, scale: Tensor, bounds: Bounds, *, nan_low: bool = False) -> Tensor:
    """As ``reference.forward``."""
    layout = _layout(x, scale)
    if layout is None:
        return reference.forward(x, scale, bounds, nan_low=nan_low)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    flat = x.is_contiguous()
    _forward[(triton.cdiv(x.numel(), BLOCK),)](
        x, y, *_grid(scale, bounds), x.numel(), *layout, *_sizes(x), *_strides(x), flat, nan_low, BLOCK
    )
    return y


def backward(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
    """As ``reference.backward``."""
    layout = _layout(x, scale)
    if layout is None:
        return reference.backward(grad, x, scale, bounds)
    return _gradients(grad, x, scale, bounds, layout, learned=False)[0]


def backward_learned(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """As ``reference.backward_learned``."""
    layout = _layout(x, scale)
    if layout is None:
        return reference.backward_learned(grad, x, scale, bounds)
    return _gradients(grad, x, scale, bounds, layout, learned=True)


def _gradients(
    grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds, layout: tuple[int, int], *, learned: bool
) -> tuple[Tensor, Tensor]:
    out, channels = torch.empty_like(x), scale.numel() if learned else 1
    if out.stride() != x.stride():  # x overlaps itself, or has gaps: the result cannot lie as x does
        x = x.contiguous()
        out = torch.empty_like(x)
    blocks = triton.cdiv(x.numel() // channels, BLOCK)
    sums = torch.empty((channels, blocks) if learned else (1, 1), dtype=torch.float32, device=x.device)
    flat = x.is_contiguous() and grad.is_contiguous()
    _backward[(blocks, channels)](
        x, grad, out, sums, *_grid(scale, bounds), x.numel(), *layout, *_sizes(x), *_strides(x),
        *_strides(grad), flat, learned, BLOCK,
    )  # fmt: skip
    return out, sums.sum(1).view(scale.shape) if learned else sums


def _layout(x: Tensor, scale: Tensor) -> tuple[int, int] | None:
    """Elements behind each other on one scale, and scales; None where the kernels do not serve."""
    if x.numel() == 0 or x.dim() > 4 or x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return None
    axes = [axis for axis, size in enumerate(scale.shape) if size != 1]
    if not axes:
        return x.numel(), 1
    first, last = axes[0], axes[-1]
    if scale.dim() != x.dim() or scale.shape[first : last + 1] != x.shape[first : last + 1]:
        return None
    return prod(x.shape[last + 1 :]), scale.numel()


def _grid(scale: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor, Tensor]:
    lower, upper = bounds.flat(scale.numel(), scale.device)
    return scale.contiguous(), lower, upper


def _sizes(x: Tensor) -> tuple[int, ...]:
    """The last three sizes, of four."""
    return ((1,) * (4 - x.dim()) + tuple(x.shape))[1:]


def _strides(x: Tensor) -> tuple[Any, ...]:
    return (0,) * (4 - x.dim()) + tuple(x.stride())
