"""Two opaque operators that stand for quantization while a model is exported.

``torch.export`` would take the arithmetic of a grid apart into divisions and roundings in which no
exporter finds a quantizer again. As custom operators they survive as one node each, and
:mod:`qexp.deploy.onnx.export` writes them as ONNX ``QuantizeLinear`` and ``DequantizeLinear``::

    q  = clamp(round_half_even(x / scale) + zero_point, qmin, qmax)
    x' = (q - zero_point) * scale

Everything is float32 with a true division, which makes the results the same bits as those of the
ONNX operators. Importing this file defines ``torch.ops.qexp.fake_quantize`` and
``torch.ops.qexp.dequantize``. Neither has a gradient: training uses the quantizers themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

PER_TENSOR = -1
"""The axis that means one scale for the whole tensor."""


@torch.library.custom_op("qexp::fake_quantize", mutates_args=())
def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, qmin: int, qmax: int) -> Tensor:
    """Round ``x`` to its grid and come back to floating point.

    Args:
        x: float32 values of any shape.
        scale: float32, one value, or with ``axis`` one for each index of that axis.
        zero_point: integers in ``[qmin, qmax]``, shaped as ``scale``.
        axis: Axis of ``x`` that the scales belong to, or -1 for one scale.
        qmin: Lowest integer of the grid.
        qmax: Highest integer of the grid.
    """
    scale, zero = (_along(t, x.dim(), axis) for t in (scale, zero_point.to(torch.float32)))
    q = torch.div(x, scale).round_().add_(zero).clamp_(qmin, qmax)
    return q.sub_(zero).mul_(scale)


@torch.library.custom_op("qexp::dequantize", mutates_args=())
def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    """Turn stored integers into the float32 values that they stand for.

    Args:
        q: int8, uint8, int16 or uint16, any shape.
        scale: float32, one value, or with ``axis`` one for each index of that axis.
        zero_point: Integers that ``q``'s type can hold, shaped as ``scale``.
        axis: Axis of ``q`` that the scales belong to, or -1 for one scale.
    """
    scale, zero = (_along(t, q.dim(), axis) for t in (scale, zero_point.to(torch.float32)))
    return q.to(torch.float32).sub_(zero).mul_(scale)


@fake_quantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, qmin: int, qmax: int) -> Tensor:
    return torch.empty_like(x)


@dequantize.register_fake
def _(q: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    return torch.empty_like(q, dtype=torch.float32)


def _along(values: Tensor, dims: int, axis: int) -> Tensor:
    """Shape a scale or zero point so that it broadcasts along ``axis`` of a tensor with ``dims`` axes."""
    if axis == PER_TENSOR:
        return values.reshape(())
    return values.reshape([-1 if index == axis else 1 for index in range(dims)])
