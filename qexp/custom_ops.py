"""Custom operators that represent quantization while a model is exported.

``torch.export`` would decompose the arithmetic of a quantizer into divisions and roundings that no exporter
can recognize. A custom operator stays a single node, which :mod:`qexp.deploy.onnx.export` writes as ONNX
``QuantizeLinear`` and ``DequantizeLinear``::

    q  = clamp(round_half_even(x / scale) + zero_point, qmin, qmax)
    x' = (q - zero_point) * scale

All arithmetic is float32 with a true division, so results are bit-identical to those of the ONNX operators.
Importing this module defines ``torch.ops.qexp.fake_quantize``, ``fake_quantize_dynamic`` and ``dequantize``,
and ``fake_quantize_float`` and ``dequantize_float`` for 8-bit floats, which round as torch and saturate.
None has a gradient, because training uses the quantizers themselves.

The range of ``fake_quantize_dynamic`` comes from the values, by the rule of ONNX ``DynamicQuantizeLinear``
(https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html), for grids of any width::

    low, high  = min(x, 0), max(x, 0)
    scale      = (high - low) / (qmax - qmin)
    zero_point = round_half_even(clamp(qmin - low / scale, qmin, qmax))

or ``scale = max(-low, high) / qmax`` on a symmetric grid, as torchao does.
"""

from __future__ import annotations

import torch
from torch import Tensor

PER_TENSOR = -1
"""Value of ``axis`` that selects one scale for the whole tensor."""


@torch.library.custom_op("qexp::fake_quantize", mutates_args=())
def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, qmin: int, qmax: int) -> Tensor:
    """Quantize ``x`` to the integer grid and dequantize the result.

    Args:
        x: Values of any shape, float32.
        scale: One float32 value, or one for each index of ``axis``.
        zero_point: Integers in ``[qmin, qmax]``, in the shape of ``scale``.
        axis: Axis of ``x`` that has a scale for each index, or -1 for a single scale.
        qmin: Lowest integer of the grid.
        qmax: Highest integer of the grid.
    """
    scale, zero = (_along(t, x.dim(), axis) for t in (scale, zero_point.to(torch.float32)))
    q = torch.div(x, scale).round_().add_(zero).clamp_(qmin, qmax)
    return q.sub_(zero).mul_(scale)


@torch.library.custom_op("qexp::fake_quantize_dynamic", mutates_args=())
def fake_quantize_dynamic(x: Tensor, tokens: bool, symmetric: bool, qmin: int, qmax: int) -> Tensor:
    """Quantize ``x`` to an integer grid over the range of its values, and dequantize the result.

    Args:
        x: Values of any shape, float32.
        tokens: Whether each index of all axes but the last has a range of its own.
        symmetric: Whether the zero point is 0.
        qmin: Lowest integer of the grid.
        qmax: Highest integer of the grid.
    """
    scale, zero = dynamic_qparams(x, tokens=tokens, symmetric=symmetric, qmin=qmin, qmax=qmax)
    q = torch.div(x, scale).round_().clamp_(qmin - zero, qmax - zero)
    return q.mul_(scale).add_(0.0)  # adding 0 turns -0 into 0, as integers have no -0


def dynamic_qparams(
    x: Tensor, *, tokens: bool, symmetric: bool, qmin: int, qmax: int
) -> tuple[Tensor, Tensor]:
    """Return the scale and the zero point, whole numbers in float32, for the range of the values.

    They are scalars, or [..., 1] with ``tokens``. A range without width, and one that float32 cannot divide
    by, has scale 1: all its values become 0.
    """
    x = x.detach().float()
    low, high = (x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)) if tokens else (x.amin(), x.amax())
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    # A tensor: CUDA multiplies by the reciprocal of a number, which rounds differently.
    levels = torch.full_like(low, qmax if symmetric else qmax - qmin)
    reach = (torch.maximum(-low, high) if qmin < 0 else high) if symmetric else high - low
    scale = reach / levels
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    if symmetric:
        return scale, torch.zeros_like(scale)
    return scale, (qmin - low / scale).clamp(qmin, qmax).round()


@torch.library.custom_op("qexp::dequantize", mutates_args=())
def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor, axis: int, block: int = 0) -> Tensor:
    """Convert stored integers to the float32 values that they represent.

    In blocks, ``block`` neighbours along ``axis`` share a scale, and ``scale`` has the shape of ``q`` but for
    that axis, where it has an entry for each block, as ONNX's ``block_size`` has it.

    Args:
        q: Integers of any shape: int8, uint8, int16 or uint16.
        scale: One float32 value, or one for each index of ``axis``.
        zero_point: Integers that the type of ``q`` can hold, in the shape of ``scale``.
        axis: Axis of ``q`` that has a scale for each index or block, or -1 for a single scale.
        block: Size of a block, or 0 for none.
    """
    parameters = (scale, zero_point.to(torch.float32))
    if block:
        scale, zero = (each.repeat_interleave(block, dim=axis) for each in parameters)
    else:
        scale, zero = (_along(each, q.dim(), axis) for each in parameters)
    return q.to(torch.float32).sub_(zero).mul_(scale)


FLOATS = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
"""Type of torch for each format of 8-bit floats."""


@torch.library.custom_op("qexp::fake_quantize_float", mutates_args=())
def fake_quantize_float(x: Tensor, scale: Tensor, axis: int, element: str) -> Tensor:
    """Quantize ``x`` to 8-bit floats and dequantize the result.

    Args:
        x: Values of any shape, float32.
        scale: One float32 value, or one for each index of ``axis``.
        axis: Axis of ``x`` that has a scale for each index, or -1 for a single scale.
        element: Format of a value, a key of ``FLOATS``.
    """
    dtype, scale = FLOATS[element], _along(scale, x.dim(), axis)
    largest = torch.finfo(dtype).max
    return torch.div(x, scale).clamp_(-largest, largest).to(dtype).to(torch.float32).mul_(scale)


@torch.library.custom_op("qexp::dequantize_float", mutates_args=())
def dequantize_float(q: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Convert stored 8-bit floats to the float32 values that they represent.

    Args:
        q: Values of any shape, of a type of ``FLOATS``.
        scale: One float32 value, or one for each index of ``axis``.
        axis: Axis of ``q`` that has a scale for each index, or -1 for a single scale.
    """
    return q.to(torch.float32).mul_(_along(scale, q.dim(), axis))


@fake_quantize_float.register_fake
def _(x: Tensor, scale: Tensor, axis: int, element: str) -> Tensor:
    return torch.empty_like(x)


@dequantize_float.register_fake
def _(q: Tensor, scale: Tensor, axis: int) -> Tensor:
    return torch.empty_like(q, dtype=torch.float32)


@fake_quantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, qmin: int, qmax: int) -> Tensor:
    return torch.empty_like(x)


@fake_quantize_dynamic.register_fake
def _(x: Tensor, tokens: bool, symmetric: bool, qmin: int, qmax: int) -> Tensor:
    return torch.empty_like(x)


@dequantize.register_fake
def _(q: Tensor, scale: Tensor, zero_point: Tensor, axis: int, block: int = 0) -> Tensor:
    return torch.empty_like(q, dtype=torch.float32)


def _along(values: Tensor, dims: int, axis: int) -> Tensor:
    """Reshape a scale or zero point to broadcast along ``axis`` of a tensor with ``dims`` axes."""
    if axis == PER_TENSOR:
        return values.reshape(())
    return values.reshape([-1 if index == axis else 1 for index in range(dims)])
