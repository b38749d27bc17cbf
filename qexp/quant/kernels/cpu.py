"""Fake quantization and its gradients on the CPU, each in one pass, by ``kernels/fake_quantize.c``.

The forward result and the gradient of ``x`` are bit-identical to ``reference``, except that a zero is never
negative. The gradient of a scale is summed in another order: partial sums of at most 8192 float32 terms, then
float64, in an order that does not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p
from functools import cache, lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from qexp.quant.bounds import Bounds
from qexp.quant.kernels import native, reference

ROW = 8192
"""Row length when a flat tensor is split into rows; a row and its result fit the L1 cache."""
ALONE = 1 << 15
"""Largest number of elements for which waking another thread is not worthwhile."""
HALVES = False

Shape = tuple[int, ...]
_Three = c_int64 * 3


class Walk(ctypes.Structure):
    """Iteration order of the kernels over tensors; see ``fake_quantize.c``."""

    _fields_ = (
        ("sizes", _Three), ("length", c_int64), ("total", c_int64), ("channels", c_int64),
        ("columns", c_int64), ("threads", c_int64),
        ("x_strides", _Three), ("y_strides", _Three), ("grad_strides", _Three),
    )  # fmt: skip

    @property
    def rows(self) -> int:
        """Total number of rows."""
        return prod(self.sizes)


def available() -> bool:
    """Return whether the kernels could be built on this machine."""
    return _kernels() is not None


def fits(x: Tensor, scale: Tensor) -> bool:
    """Return whether the kernels support these tensors: float32 on the CPU, scales along adjacent axes."""
    if x.dtype is not torch.float32 or scale.dtype is not torch.float32 or not x.is_cpu or not x.numel():
        return False
    return scale.dim() == 0 or _flat(tuple(x.shape), tuple(scale.shape), 1) is not None


def forward(x: Tensor, scale: Tensor, bounds: Bounds, *, nan_low: bool = False) -> Tensor:
    """Return what ``reference.forward`` does."""
    y = torch.empty(x.shape, dtype=x.dtype)
    walk, (x, y) = _route(scale, x, y)
    run = _kernels()[0]  # type: ignore[index]
    run(ctypes.byref(walk), *_grid(scale, bounds), x.data_ptr(), y.data_ptr(), int(nan_low))
    return y


def forward_inside(x: Tensor, scale: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Return what ``forward`` does, and where the gradient passes, bool; both contiguous."""
    y, inside = torch.empty(x.shape, dtype=x.dtype), torch.empty(x.shape, dtype=torch.bool)
    walk, (x, y) = _route(scale, x, y)
    run = _kernels()[3]  # type: ignore[index]
    passing = bounds.passing.flat(scale.numel())  # held until the call is over
    pointers = (*(each.data_ptr() for each in passing), x.data_ptr(), y.data_ptr(), inside.data_ptr())
    run(ctypes.byref(walk), *_grid(scale, bounds), *pointers)
    return y, inside


def backward(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
    """Return what ``reference.backward`` does."""
    walk, (x, out, grad) = _route(scale, x, torch.empty_like(x), grad)
    run = _kernels()[1]  # type: ignore[index]
    run(ctypes.byref(walk), *_grid(scale, bounds), x.data_ptr(), grad.data_ptr(), out.data_ptr())
    return out


def backward_learned(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Return what ``reference.backward_learned`` does."""
    walk, (x, out, grad) = _route(scale, x, torch.empty_like(x), grad)
    if walk.columns:
        return reference.backward_learned(grad, x, scale, bounds)
    sums = torch.empty(walk.rows)
    run = _kernels()[2]  # type: ignore[index]
    pointers = (x.data_ptr(), grad.data_ptr(), out.data_ptr(), sums.data_ptr())
    run(ctypes.byref(walk), *_grid(scale, bounds), *pointers)
    total = sums.view(-1, walk.channels).sum(0, dtype=torch.float64)
    return out, total.to(torch.float32).view(scale.shape)


@cache
def _kernels() -> list[Any] | None:
    names = {
        "qexp_fake_quantize": 5, "qexp_fake_quantize_backward": 6, "qexp_fake_quantize_learned": 7,
        "qexp_fake_quantize_inside": 8,
    }  # fmt: skip
    trailing = {"qexp_fake_quantize": (c_int64,)}
    kernels = [
        native.function(name, ctypes.POINTER(Walk), *[c_void_p] * pointers, *trailing.get(name, ()))
        for name, pointers in names.items()
    ]
    return None if None in kernels else kernels


def _grid(scale: Tensor, bounds: Bounds) -> tuple[int, int, int]:
    """Return the addresses of the scales and of the lower and upper bounds.

    The tensors must outlive the kernel call: the caller holds them.
    """
    lower, upper = bounds.flat(scale.numel())
    return scale.contiguous().data_ptr(), lower.data_ptr(), upper.data_ptr()


def _route(scale: Tensor, *tensors: Tensor) -> tuple[Walk, tuple[Tensor, ...]]:
    """Return a walk over x, y and the gradient, which are copied if no walk fits their layouts."""
    x = tensors[0]
    threads = torch.get_num_threads() if x.numel() > ALONE else 1
    shape, of_scale = tuple(x.shape), tuple(scale.shape)
    if all(tensor.is_contiguous() for tensor in tensors):
        walk = _flat(shape, of_scale, threads)
    else:
        walk = _strided(shape, of_scale, tuple(tensor.stride() for tensor in tensors), threads)
    if walk is None:
        return _route(scale, *(tensor.contiguous() for tensor in tensors))
    return walk, tensors


@lru_cache(maxsize=4096)
def _flat(shape: Shape, of_scale: Shape, threads: int) -> Walk | None:
    """Return a walk over contiguous tensors, or None if the scales are not on adjacent axes."""
    total = prod(shape)
    if prod(of_scale) == 1:
        rows = -(-total // ROW)
        return _walk(
            (1, 1, rows),
            ROW,
            total=total,
            channels=1,
            columns=False,
            threads=threads,
            strides=[(0, 0, ROW)] * 3,
        )
    axes = [axis for axis, size in enumerate(of_scale) if size != 1]
    first, last = axes[0], axes[-1]
    if len(of_scale) != len(shape) or of_scale[first : last + 1] != shape[first : last + 1]:
        return None
    channels, inner = prod(of_scale), prod(shape[last + 1 :])
    if inner == 1:
        rows, length = total // channels, channels
    else:
        rows, length = total // inner, inner
    return _walk(
        (1, 1, rows),
        length,
        total=total,
        channels=channels,
        columns=inner == 1,
        threads=threads,
        strides=[(0, 0, length)] * 3,
    )


@lru_cache(maxsize=4096)
def _strided(shape: Shape, of_scale: Shape, strides: tuple[Shape, ...], threads: int) -> Walk | None:
    """Return a walk over tensors with one scale that are contiguous along the last axis only, or None."""
    if prod(of_scale) != 1 or not 1 <= len(shape) <= 4 or any(stride[-1] != 1 for stride in strides):
        return None
    pad = 4 - len(shape)
    sizes = (1,) * pad + shape[:-1]
    outer = [(0,) * pad + stride[:-1] for stride in strides]
    return _walk(
        sizes,
        shape[-1],
        total=prod(shape),
        channels=1,
        columns=False,
        threads=threads,
        strides=[*outer, (0, 0, 0)][:3],
    )


def _walk(
    sizes: Shape, length: int, total: int, channels: int, columns: bool, threads: int, strides: list[Shape]
) -> Walk:
    x, y, grad = (_Three(*stride) for stride in strides)
    return Walk(
        sizes=_Three(*sizes),
        length=length,
        total=total,
        channels=channels,
        columns=int(columns),
        threads=min(threads, prod(sizes)),
        x_strides=x,
        y_strides=y,
        grad_strides=grad,
    )
