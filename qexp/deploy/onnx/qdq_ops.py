"""Translations of the ``torch.ops.qexp`` operators to ONNX operators.

A grid is stored in the smallest integer type that holds it: int8 or uint8, above 8 bits int16 or
uint16. ``QuantizeLinear`` saturates at the limits of the type, so a grid narrower than its type gets
a clamp in front, at ``(qmin - zero_point) * scale`` and ``(qmax - zero_point) * scale``. Divided by
the scale again, these bounds are within a few ulp of an integer below 2**16, hence they round to it. Since
rounding is monotonic, the result equals clamped integers bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset18, opset21
from torch.export import ExportedProgram

from qexp.custom_ops import PER_TENSOR

INTEGERS: dict[np.dtype[Any], ir.DataType] = {
    np.dtype(np.int8): ir.DataType.INT8,
    np.dtype(np.uint8): ir.DataType.UINT8,
    np.dtype(np.int16): ir.DataType.INT16,
    np.dtype(np.uint16): ir.DataType.UINT16,
}
"""Types that store the integers of a grid, smallest first."""
OPSET = 20
"""First opset with a Gelu operator, which ONNX Runtime fuses; it does not fuse the form of older opsets."""
WIDE_OPSET = 21
"""First opset in which ``QuantizeLinear`` supports 16 bits, and ``DequantizeLinear`` blocks."""
BLOCK = 4
"""Position of ``block`` among the arguments of ``torch.ops.qexp.dequantize``."""

op: Any = opset18
newer: Any = opset21
"""Builders of nodes in the current graph. Untyped: their own types describe eager values, not nodes."""


def container(qmin: int, qmax: int) -> np.dtype[Any]:
    """Return the smallest integer type for a grid: signed only if the grid has negative numbers.

    Raises:
        ValueError: The grid does not fit 16 bits.
    """
    for dtype in INTEGERS:
        limits = np.iinfo(dtype)
        if (limits.min < 0) == (qmin < 0) and limits.min <= qmin and qmax <= limits.max:
            return dtype
    raise ValueError(f"a grid from {qmin} to {qmax} does not fit 16 bits")


def opset_for(program: ExportedProgram) -> int:
    """Return the lowest opset that supports every grid of a traced model."""
    ops = torch.ops.qexp
    for node in program.graph.nodes:
        if node.target is ops.fake_quantize.default and container(*node.args[4:6]).itemsize > 1:
            return WIDE_OPSET
        if node.target is ops.dequantize.default and _is_new(node.args):
            return WIDE_OPSET
    return OPSET


def _is_new(arguments: Sequence[Any]) -> bool:
    """Return whether stored integers need opset 21: wider than 8 bits, or in blocks."""
    return arguments[0].meta["val"].element_size() > 1 or any(arguments[BLOCK:])


def _fake_quantize(
    x: ir.Value, scale: ir.Value, zero_point: ir.Value, axis: int, qmin: int, qmax: int
) -> Any:
    dtype = container(qmin, qmax)
    scale, zero_point = _shaped(scale, axis), _shaped(zero_point, axis)
    shape = op.Constant(value_ints=[-1 if index == axis else 1 for index in range(len(x.shape or ()))])
    if (qmin, qmax) != (np.iinfo(dtype).min, np.iinfo(dtype).max):
        low, high = (_bound(limit, scale, zero_point) for limit in (qmin, qmax))
        x = op.Clip(x, low, high) if axis == PER_TENSOR else _clip_along(x, low, high, shape)
    zero = op.Cast(zero_point, to=INTEGERS[dtype])
    if axis == PER_TENSOR:
        return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero), scale, zero)
    return _dequantize_along(op.QuantizeLinear(x, scale, zero, axis=axis), scale, zero_point, shape)


def _fake_quantize_dynamic(x: ir.Value, tokens: bool, symmetric: bool, qmin: int, qmax: int) -> Any:
    """Write a range that is found at run time, in a form that runtimes multiply in integers if possible.

    A ``DynamicQuantizeLinear`` has a range of the tensor on the grid of uint8. On a symmetric grid the values
    are divided by their scales, quantized in steps of 1, and multiplied by the scales again, which
    :mod:`qexp.deploy.onnx.dynamic_scales` moves behind products. Other grids are arithmetic.
    """
    if not tokens and not symmetric and (qmin, qmax) == (0, 255):
        integers, scale, zero = op.DynamicQuantizeLinear(x)
        return op.DequantizeLinear(integers, scale, zero)
    none, one = op.Constant(value_float=0.0), op.Constant(value_float=1.0)
    low = None if symmetric else op.Min(_reduced(op.ReduceMin, x, tokens), none)
    high = op.Max(_reduced(op.ReduceMax, op.Abs(x) if symmetric and qmin < 0 else x, tokens), none)
    reach = high if symmetric else op.Sub(high, low)
    scale = op.Div(reach, op.Constant(value_float=float(qmax if symmetric else qmax - qmin)))
    scale = op.Where(op.Equal(scale, none), one, scale)
    if symmetric and qmax <= np.iinfo(np.uint8).max:
        zero = op.Cast(op.Constant(value_int=0), to=INTEGERS[container(qmin, qmax)])
        return op.Mul(op.DequantizeLinear(op.QuantizeLinear(op.Div(x, scale), one, zero), one, zero), scale)
    first, last = (op.Constant(value_float=float(each)) for each in (qmin, qmax))
    zero = none if symmetric else op.Round(op.Clip(op.Sub(first, op.Div(low, scale)), first, last))
    steps = op.Clip(op.Add(op.Round(op.Div(x, scale)), zero), first, last)
    return op.Mul(op.Sub(steps, zero), scale)


def _reduced(reduce: Callable[..., Any], x: ir.Value, tokens: bool) -> Any:
    """Reduce a tensor to a scalar, or each of its tokens to one value [..., 1]."""
    return reduce(x, op.Constant(value_ints=[-1]), keepdims=1) if tokens else reduce(x, keepdims=0)


def _dequantize_along(q: ir.Value, scale: ir.Value, zero_point: ir.Value, shape: ir.Value) -> Any:
    """Return ``DequantizeLinear`` of an activation as arithmetic with bit-identical results.

    ONNX Runtime fuses the operator into an integer product whatever its axis, and the kernel then
    refuses an activation with more than one scale.
    """
    zero = op.Reshape(op.Cast(zero_point, to=ir.DataType.FLOAT), shape)
    return op.Mul(op.Sub(op.Cast(q, to=ir.DataType.FLOAT), zero), op.Reshape(scale, shape))


def _dequantize(q: ir.Value, scale: ir.Value, zero_point: ir.Value, axis: int, block: int = 0) -> Any:
    if block:
        zero = op.Cast(zero_point, to=q.dtype)
        return newer.DequantizeLinear(q, scale, zero, axis=axis, block_size=block)
    zero = op.Cast(_shaped(zero_point, axis), to=q.dtype)
    along = {} if axis == PER_TENSOR else {"axis": axis}
    return op.DequantizeLinear(q, _shaped(scale, axis), zero, **along)


_FLOATS = {"fp8_e4m3": ir.DataType.FLOAT8E4M3FN, "fp8_e5m2": ir.DataType.FLOAT8E5M2}


def _fake_quantize_float(x: ir.Value, scale: ir.Value, axis: int, element: str) -> Any:
    """Write 8-bit floats, whose type the zero point names; ``QuantizeLinear`` saturates by default."""
    along, zero = {} if axis == PER_TENSOR else {"axis": axis}, _float_zeros(scale, axis, _FLOATS[element])
    scale = _shaped(scale, axis)
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero, **along), scale, zero, **along)


def _dequantize_float(q: ir.Value, scale: ir.Value, axis: int) -> Any:
    along, zero = {} if axis == PER_TENSOR else {"axis": axis}, _float_zeros(scale, axis, q.dtype)
    return op.DequantizeLinear(q, _shaped(scale, axis), zero, **along)


def _float_zeros(scale: ir.Value, axis: int, dtype: ir.DataType | None) -> Any:
    """Return zero points in the shape of the scales."""
    if axis == PER_TENSOR:
        return op.Cast(op.Constant(value_float=0.0), to=dtype)
    assert scale.shape is not None
    return op.Cast(op.Constant(value_floats=[0.0] * scale.shape.numpy()[0]), to=dtype)


def _shaped(values: ir.Value, axis: int) -> Any:
    """Squeeze a per-tensor scale or zero point to a scalar, which is how ONNX marks per-tensor."""
    return op.Squeeze(values) if axis == PER_TENSOR and len(values.shape or ()) else values


def _bound(limit: int, scale: ir.Value, zero_point: ir.Value) -> Any:
    """Return the value of the grid's integer ``limit``, from constants that the exporter folds into one."""
    integer = op.Sub(op.Constant(value_float=float(limit)), op.Cast(zero_point, to=ir.DataType.FLOAT))
    return op.Mul(integer, scale)


def _clip_along(x: ir.Value, low: ir.Value, high: ir.Value, shape: ir.Value) -> Any:
    """Return ``Clip`` with per-channel bounds; the ONNX operator takes only scalars."""
    return op.Min(op.Max(x, op.Reshape(low, shape)), op.Reshape(high, shape))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.qexp.fake_quantize.default: _fake_quantize,
    torch.ops.qexp.fake_quantize_dynamic.default: _fake_quantize_dynamic,
    torch.ops.qexp.dequantize.default: _dequantize,
    torch.ops.qexp.fake_quantize_float.default: _fake_quantize_float,
    torch.ops.qexp.dequantize_float.default: _dequantize_float,
}
"""ONNX translation of each custom operator."""
