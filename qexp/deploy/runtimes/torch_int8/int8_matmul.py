"""Quantizing, dequantizing, and products of integers in torch.

An activation ``x = s (q - z)`` by a weight ``w = t r``, with one ``t`` for each column, is

    x @ w = s t (q @ r - z sum(r))

with the sum over each column of ``r``, known beforehand. ``torch._int_mm`` computes ``q @ r`` exactly in
int32: on a GPU by cuBLASLt, or by a kernel of Triton into which a compiler fuses what follows; on a CPU by
oneDNN. It takes signed integers only. An unsigned grid is moved by 128 (:func:`signed`): ``clamp(round(x / s)
+ z, 0, 255) - 128 == clamp(round(x / s) + z - 128, -128, 127)``, so no number changes.

The kernels on a GPU want more than 16 rows, and an inner size and a width that are multiples of 8; zeros are
added to what does not fit (:func:`padded_weight`, :func:`multiply`), and cut off from the result.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

PADDED = {"cuda"}
"""Types of devices whose products want certain sizes."""
MULTIPLE = 8
"""Of which the inner size and the width of a product on a GPU must be multiples."""
FEWEST = 17
"""Rows that a product on a GPU must have."""
LIMITS: dict[torch.dtype, tuple[int, int]] = {
    torch.int8: (-128, 127), torch.uint8: (0, 255),
    torch.int16: (-(2**15), 2**15 - 1), torch.int32: (0, 2**16 - 1),
}  # fmt: skip
"""Of each type that a grid is stored in; uint16 lies in int32."""


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor, *, axis: int = 1, saturate: int = 1) -> Tensor:
    """``clamp(round(x / scale) + zero_point)``, in FP32 whatever the type of x; ties go to even."""
    steps = torch.round(x.float() / _along(scale, x.dim(), axis)) + _along(zero_point, x.dim(), axis)
    return torch.clamp(steps, *LIMITS[zero_point.dtype]).to(zero_point.dtype)


def dequantize(
    q: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    kind: torch.dtype = torch.float32,
) -> Tensor:
    """``(q - zero_point) * scale``, computed in FP32 and rounded to a type."""
    steps = q.float()
    if zero_point is not None:
        steps = steps - _along(zero_point, q.dim(), axis).float()
    return (steps * _along(scale, q.dim(), axis)).to(kind)


def _along(values: Tensor, dims: int, axis: int) -> Tensor:
    if values.dim() == 0:
        return values
    return values.reshape([-1 if index == axis % dims else 1 for index in range(dims)])


def signed(zero_point: Tensor) -> Tensor:
    """The zero point of an unsigned grid after it was moved by 128; of a signed one, itself."""
    return (
        (zero_point.to(torch.int16) - 128).to(torch.int8) if zero_point.dtype == torch.uint8 else zero_point
    )


def padding(inner: int, width: int) -> tuple[int, int]:
    """Inner size and width to add to a product for a GPU."""
    return -inner % MULTIPLE, -width % MULTIPLE


def padded_weight(weight: Tensor, device: torch.device) -> Tensor:
    """A weight [inner, width] as the kernels read it: by columns, and of sizes that they take."""
    if device.type in PADDED:
        inner, width = padding(*weight.shape)
        weight = functional.pad(weight, (0, width, 0, inner))
    return weight.t().contiguous().t()


def product(q: Tensor, weight: Tensor, offset: Tensor, scale: Tensor, kind: torch.dtype) -> Tensor:
    """Multiply a quantized activation by a quantized weight.

    Args:
        q: int8 [..., inner].
        weight: int8 [inner, width], as :func:`padded_weight` makes it.
        offset: int32 [width]: the activation's zero point times the sum of each column.
        scale: FP32 [width]: the activation's scale times that of each column.
        kind: type of the result.

    Returns:
        [..., width].
    """
    flat = q.reshape(-1, q.shape[-1])
    # What has one row for each row of a batch always counts as few: to ask would mean to compile twice.
    total = multiply(flat, weight, few=q.dim() == 2 or flat.shape[0] < FEWEST)
    values = (total[: flat.shape[0], : scale.shape[0]] - offset).float() * scale
    return values.to(kind).reshape(*q.shape[:-1], scale.shape[0])


def multiply(left: Tensor, right: Tensor, *, few: bool) -> Tensor:
    """The exact product of int8 matrices in int32; on a GPU it may have more rows and columns.

    Args:
        left: int8 [rows, inner].
        right: as :func:`padded_weight` makes it.
        few: whether the left side may have too few rows for a GPU.
    """
    if left.device.type in PADDED:
        inner = right.shape[0] - left.shape[1]
        left = functional.pad(left, (0, inner, 0, FEWEST if few else 0))
    return torch._int_mm(left, right)


@cache
def exact(device: str) -> bool:
    """Whether this device's product of int8 is right with the largest values: kernels may saturate."""
    left, right = torch.full((32, 64), -128, dtype=torch.int8), torch.full((64, 32), -128, dtype=torch.int8)
    left[::2], right[:, ::2] = 127, 127
    weight = padded_weight(right, torch.device(device)).to(device)
    found = multiply(left.to(device), weight, few=False).cpu()
    return torch.equal(found.long(), left.long() @ right.long())
