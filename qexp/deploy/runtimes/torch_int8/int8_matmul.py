"""Quantization, dequantization, and integer products in torch.

An activation ``x = s (q - z)`` by a weight ``w = t r``, with one ``t`` for each column, is

    x @ w = s t (q @ r - z sum(r))

where the sum over each column of ``r`` is precomputed. ``torch._int_mm`` computes ``q @ r`` exactly in
int32: on a GPU by cuBLASLt, or by a Triton kernel into which a compiler fuses the following operations; on a
CPU by oneDNN. It takes signed integers only. An unsigned grid is shifted by 128 (:func:`signed`):
``clamp(round(x / s) + z, 0, 255) - 128 == clamp(round(x / s) + z - 128, -128, 127)``, so no result changes.

The kernels on a GPU require more than 16 rows, and an inner size and a width that are multiples of 8. Other
operands are padded with zeros (:func:`padded_weight`, :func:`multiply`), which are cut off from the result.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

PADDED = {"cuda"}
"""Types of devices whose products require certain sizes."""
MULTIPLE = 8
"""Divisor that the inner size and the width of a product on a GPU must have."""
FEWEST = 17
"""Minimum number of rows of a product on a GPU."""
LIMITS: dict[torch.dtype, tuple[int, int]] = {
    torch.int8: (-128, 127), torch.uint8: (0, 255),
    torch.int16: (-(2**15), 2**15 - 1), torch.int32: (0, 2**16 - 1),
}  # fmt: skip
"""Limits of each type that stores a grid; uint16 is stored in int32."""


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, *, axis: int = 1, saturate: int = 1) -> Tensor:
    """Return ``clamp(round(x / scale) + zero_point)``, computed in FP32 for any type of x, ties to even."""
    steps = torch.round(x.float() / _along(scale, x.dim(), axis)) + _along(zero_point, x.dim(), axis)
    return torch.clamp(steps, *LIMITS[zero_point.dtype]).to(zero_point.dtype)


def dequantize(
    q: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block: int = 0,
    kind: torch.dtype = torch.float32,
) -> Tensor:
    """Return ``(q - zero_point) * scale``, computed in FP32 and rounded to ``kind``.

    With ``block``, so many neighbours along ``axis`` share a scale, which has an entry for each block.
    """
    if block:
        scale = scale.repeat_interleave(block, axis)
        zero_point = None if zero_point is None else zero_point.repeat_interleave(block, axis)
    steps = q.float()
    if zero_point is not None:
        steps = steps - _along(zero_point, q.dim(), axis).float()
    return (steps * _along(scale, q.dim(), axis)).to(kind)


def _along(values: Tensor, dims: int, axis: int) -> Tensor:
    if values.dim() in (0, dims):
        return values
    return values.reshape([-1 if index == axis % dims else 1 for index in range(dims)])


def signed(zero_point: Tensor) -> Tensor:
    """Return the zero point of an unsigned grid shifted by 128 to int8; that of a signed grid unchanged."""
    return (
        (zero_point.to(torch.int16) - 128).to(torch.int8) if zero_point.dtype == torch.uint8 else zero_point
    )


def padding(inner: int, width: int) -> tuple[int, int]:
    """Return the inner size and width to add to a product for a GPU."""
    return -inner % MULTIPLE, -width % MULTIPLE


def padded_weight(weight: Tensor, device: torch.device) -> Tensor:
    """Return a weight [inner, width] in the layout of the kernels: column-major, padded on a GPU."""
    if device.type in PADDED:
        inner, width = padding(*weight.shape)
        weight = functional.pad(weight, (0, width, 0, inner))
    return weight.t().contiguous().t()


def product(q: Tensor, weight: Tensor, offset: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    """Multiply a quantized activation by a quantized weight.

    Args:
        q: int8 [..., inner].
        weight: int8 [inner, width], from :func:`padded_weight`.
        offset: int32 [width], the activation's zero point times the sum of each column.
        scale: FP32 [width], the activation's scale times the scale of each column.
        kind: Type of the result.

    Returns:
        Product [..., width].
    """
    flat = q.reshape(-1, q.shape[-1])
    # An input with one row per batch row always counts as few: a check would compile twice.
    total = multiply(flat, weight, few=q.dim() == 2 or flat.shape[0] < FEWEST)
    values = (total[: flat.shape[0], : scale.shape[0]] - offset).float() * scale
    return values.to(kind).reshape(*q.shape[:-1], scale.shape[0])


def multiply(left: Tensor, right: Tensor, *, few: bool) -> Tensor:
    """Return the exact product of int8 matrices in int32; on a GPU it may have extra rows and columns.

    Args:
        left: int8 [rows, inner].
        right: int8 [inner, width], from :func:`padded_weight`.
        few: Whether ``left`` may have too few rows for a GPU.
    """
    if left.device.type in PADDED:
        inner = right.shape[0] - left.shape[1]
        left = functional.pad(left, (0, inner, 0, FEWEST if few else 0))
    return torch._int_mm(left, right)


@cache
def exact(device: str) -> bool:
    """Return whether the device's int8 product is right for the largest values: kernels may saturate."""
    left, right = torch.full((32, 64), -128, dtype=torch.int8), torch.full((64, 32), -128, dtype=torch.int8)
    left[::2], right[:, ::2] = 127, 127
    weight = padded_weight(right, torch.device(device)).to(device)
    result = multiply(left.to(device), weight, few=False).cpu()
    return torch.equal(result.long(), left.long() @ right.long())
