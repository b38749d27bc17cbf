"""Fake quantization and its gradients on CUDA, in Triton, each in one pass over memory.

The forward pass reads x and writes y. The gradient of a frozen range reads x and the incoming gradient and
writes one tensor. For a learned range, each program also writes its part of the scale's gradient in the same
pass, and a second, small reduction adds the parts in a fixed order, so that two runs are bit-identical.

The arithmetic is float32 whatever the type of x, with a correctly rounded division, in the order of
``qexp.quant.grid``: forward results are bit-identical to ``reference``, except that a zero is never negative.
Because the bounds of a grid are whole numbers, clamping before rounding equals clamping after it, and
rounding the clamped value half to even is an addition and a subtraction of 1.5 * 2**23.
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
"""Number of elements that one program processes."""
HALVES = True


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _place(index, sizes_1, sizes_2, sizes_3, s0, s1, s2, s3, FLAT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the memory offset of element ``index`` of a tensor, counted in logical order."""
    if FLAT:
        return index
    i3, rest = index % sizes_3, index // sizes_3
    i2, rest = rest % sizes_2, rest // sizes_2
    return (rest // sizes_1) * s0 + (rest % sizes_1) * s1 + i2 * s2 + i3 * s3


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _steps(v, lower, upper):  # type: ignore[no-untyped-def]
    """Return ``clamp(round(v), lower, upper)``; NaN passes through."""
    v = tl.where(v < lower, lower, v)
    v = tl.where(v > upper, upper, v)
    return (v + 12582912.0) - 12582912.0


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _forward(  # type: ignore[no-untyped-def]
    x_at,
    y_at,
    scale_at,
    lower_at,
    upper_at,
    total,
    inner,
    channels,
    n1,
    n2,
    n3,
    s0,
    s1,
    s2,
    s3,
    FLAT: tl.constexpr,
    NAN_LOW: tl.constexpr,
    SIZE: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    valid = index < total
    channel = (index // inner) % channels
    scale = tl.load(scale_at + channel, mask=valid, other=1.0)
    lower = tl.load(lower_at + channel, mask=valid, other=0.0)
    upper = tl.load(upper_at + channel, mask=valid, other=0.0)
    x = tl.load(
        x_at + _place(index, n1, sizes_2=n2, sizes_3=n3, s0=s0, s1=s1, s2=s2, s3=s3, FLAT=FLAT),
        mask=valid,
        other=0.0,
    )
    v = tl.div_rn(x.to(tl.float32), scale)
    if NAN_LOW:
        v = tl.where(v == v, v, lower)
    y = _steps(v, lower, upper) * scale + 0.0
    tl.store(y_at + index, y.to(y_at.dtype.element_ty), mask=valid)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _backward(  # type: ignore[no-untyped-def]
    x_at,
    grad_at,
    out_at,
    sums_at,
    scale_at,
    lower_at,
    upper_at,
    total,
    inner,
    channels,
    n1,
    n2,
    n3,
    s0,
    s1,
    s2,
    s3,
    g0,
    g1,
    g2,
    g3,
    parts,
    FLAT: tl.constexpr,
    LEARNED: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Compute the gradients of one block.

    Program ``c * parts + p`` processes the p-th part of channel c's elements if ranges are learned, else of
    all elements. The launch has one axis: others end at 65535, and a weight in blocks has more channels.
    """
    program = tl.program_id(0)
    within = (program % parts).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    if LEARNED:
        valid = within < total // channels
        index = (within // inner * channels + program // parts) * inner + within % inner
    else:
        valid = within < total
        index = within
    channel = (index // inner) % channels
    scale = tl.load(scale_at + channel, mask=valid, other=1.0)
    lower = tl.load(lower_at + channel, mask=valid, other=0.0)
    upper = tl.load(upper_at + channel, mask=valid, other=0.0)
    place = _place(index, n1, sizes_2=n2, sizes_3=n3, s0=s0, s1=s1, s2=s2, s3=s3, FLAT=FLAT)
    grad = tl.load(
        grad_at + _place(index, n1, sizes_2=n2, sizes_3=n3, s0=g0, s1=g1, s2=g2, s3=g3, FLAT=FLAT),
        mask=valid,
        other=0.0,
    )
    v = tl.div_rn(tl.load(x_at + place, mask=valid, other=0.0).to(tl.float32), scale)
    passed = tl.where((v >= lower) & (v <= upper), grad.to(tl.float32), 0.0)
    tl.store(out_at + place, passed.to(out_at.dtype.element_ty), mask=valid)
    if LEARNED:
        part = tl.sum(grad.to(tl.float32) * _steps(v, lower, upper) - passed * v, axis=0)
        tl.store(sums_at + program, part)


def forward(x: Tensor, scale: Tensor, bounds: Bounds, *, nan_low: bool = False) -> Tensor:
    """Return what ``reference.forward`` does."""
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
    """Return what ``reference.backward`` does."""
    layout = _layout(x, scale)
    if layout is None:
        return reference.backward(grad, x, scale, bounds)
    return _gradients(grad, x, scale=scale, bounds=bounds, layout=layout, learned=False)[0]


def backward_learned(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Return what ``reference.backward_learned`` does."""
    layout = _layout(x, scale)
    if layout is None:
        return reference.backward_learned(grad, x, scale, bounds)
    return _gradients(grad, x, scale=scale, bounds=bounds, layout=layout, learned=True)


def _gradients(
    grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds, layout: tuple[int, int], *, learned: bool
) -> tuple[Tensor, Tensor]:
    out, channels = torch.empty_like(x), scale.numel() if learned else 1
    if out.stride() != x.stride():  # x overlaps itself or has gaps, so the result cannot share its layout
        x = x.contiguous()
        out = torch.empty_like(x)
    elements = x.numel() // channels
    size = min(BLOCK, triton.next_power_of_2(elements))
    parts = triton.cdiv(elements, size)
    sums = torch.empty((channels, parts) if learned else (1, 1), dtype=torch.float32, device=x.device)
    flat = x.is_contiguous() and grad.is_contiguous()
    _backward[(channels * parts,)](
        x,
        grad,
        out,
        sums,
        *_grid(scale, bounds),
        x.numel(),
        *layout,
        *_sizes(x),
        *_strides(x),
        *_strides(grad),
        parts,
        flat,
        learned,
        size,
    )
    return out, sums.sum(1).view(scale.shape) if learned else sums


def _layout(x: Tensor, scale: Tensor) -> tuple[int, int] | None:
    """Return the number of consecutive elements per scale and of scales, or None if unsupported."""
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
    """Return the last three of the sizes padded to four axes."""
    return ((1,) * (4 - x.dim()) + tuple(x.shape))[1:]


def _strides(x: Tensor) -> tuple[Any, ...]:
    return (0,) * (4 - x.dim()) + tuple(x.stride())
