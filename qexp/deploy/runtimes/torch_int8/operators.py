"""Torch functions for the ONNX operators of exported encoders.

A function takes the inputs of a node by position, None for an omitted one, and its attributes by name. Sizes,
and values computed from sizes alone, are Python integers and tuples: so a compiler sees shapes, and no
value is copied from a GPU to get a shape.

Some operators overflow in 16 bits, or lose too much precision: they compute in FP32, and their results stay
in FP32 up to the next product or norm, which converts them to the type of its weights.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from qexp.deploy.runtimes.torch_int8.int8_matmul import dequantize, quantize

Sizes = tuple[int, ...]
HALVES = (torch.float16, torch.bfloat16)
TYPES: dict[int, torch.dtype] = {
    2: torch.uint8, 3: torch.int8, 4: torch.int32, 5: torch.int16, 6: torch.int32,
    7: torch.int64, 9: torch.bool,
}  # fmt: skip
"""Torch types by ONNX's numbers; uint16 is stored in int32, which torch computes with."""


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return a product of floats, in the narrower of both types."""
    kind = min(left.dtype, right.dtype, key=lambda each: each.itemsize)
    return torch.matmul(left.to(kind), right.to(kind))


def gemm(
    left: Tensor,
    right: Tensor,
    bias: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Return ``alpha * left @ right + beta * bias``, with either factor transposed first if requested."""
    product = matmul(left.t() if transA else left, right.t() if transB else right)
    product = product if alpha == 1 else product * alpha
    return product if bias is None else product + (bias if beta == 1 else bias * beta)


def attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Return ``softmax(query @ keys * scale + mask) @ values``, with heads in the second of four axes.

    Args:
        query: [batch, heads, length, width].
        keys: [batch, heads, width, tokens].
        values: [batch, heads, tokens, width].
        mask: Added to the scores, broadcast; None for no mask.
        scale: Factor of the scores.
    """
    kind = min((query.dtype, keys.dtype, values.dtype), key=lambda each: each.itemsize)
    query, keys, values = (each.to(kind) for each in (query, keys.transpose(-2, -1), values))
    bias = None if mask is None else mask.to(kind)
    return functional.scaled_dot_product_attention(query, keys, values, bias, scale=scale)


def _layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    return functional.layer_norm(x.to(weight.dtype), x.shape[axis:], weight, bias, epsilon)


def _gather(data: Any, places: Any, *, axis: int = 0) -> Any:
    if isinstance(data, tuple):
        return data[places] if isinstance(places, int) else tuple(data[place] for place in places)
    return data[(slice(None),) * (axis % data.dim()) + (places,)]


def _gather_nd(data: Tensor, places: Tensor, *, batch_dims: int = 0) -> Tensor:
    assert batch_dims == 0
    return data[places.unbind(-1)]


def _slice(
    data: Any, starts: Sizes, ends: Sizes, axes: Sizes | None = None, steps: Sizes | None = None
) -> Any:
    cuts = [slice(*each) for each in zip(starts, ends, steps or (1,) * len(starts), strict=True)]
    if isinstance(data, tuple):
        return data[cuts[0]]
    chosen = [slice(None)] * data.dim()
    for axis, cut in zip(axes or range(len(starts)), cuts, strict=True):
        chosen[axis] = cut
    return data[tuple(chosen)]


def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Sizes:
    return tuple(x.shape[start:end])


def _squeeze(x: Any, axes: Sizes | None = None) -> Any:
    if isinstance(x, tuple):
        return x[0]
    return x.squeeze() if axes is None else x.squeeze(axes)


def _unsqueeze(x: Any, axes: Sizes) -> Any:
    if not isinstance(x, Tensor):
        return (x,)
    dims = x.dim() + len(axes)
    for axis in sorted(each % dims for each in axes):
        x = x.unsqueeze(axis)
    return x


def _concat(*parts: Any, axis: int) -> Any:
    return torch.cat(parts, axis) if isinstance(parts[0], Tensor) else sum(parts, ())


def _reshape(x: Tensor, sizes: Sizes, *, allowzero: int = 0) -> Tensor:
    kept = sizes if allowzero else [size or x.shape[index] for index, size in enumerate(sizes)]
    return x.reshape(tuple(kept))


def _expand(x: Tensor, sizes: Sizes) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, sizes))


def _transpose(x: Tensor, *, perm: Sizes | None = None) -> Tensor:
    return x.permute(perm or tuple(reversed(range(x.dim()))))


def _pad(
    x: Tensor, ends: Sizes, value: Tensor | None = None, axes: Sizes | None = None, *, mode: str = "constant"
) -> Tensor:
    named = axes or tuple(range(x.dim()))
    both = dict(
        zip(
            (axis % x.dim() for axis in named),
            zip(ends[: len(named)], ends[len(named) :], strict=True),
            strict=True,
        )
    )
    flat = [end for axis in reversed(range(x.dim())) for end in both.get(axis, (0, 0))]
    return functional.pad(x, flat, mode, None if value is None else float(value))


def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return torch.clamp(x, low, high)


def _cumsum(x: Tensor, axis: int, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    assert not exclusive and not reverse
    return torch.cumsum(x, axis, dtype=x.dtype)


def _split(
    x: Tensor, sizes: Sizes | None = None, *, axis: int = 0, num_outputs: int = 0
) -> tuple[Tensor, ...]:
    each = -(-x.shape[axis] // num_outputs) if sizes is None else list(sizes)
    return tuple(torch.split(x, each, axis))


def _divide(left: Any, right: Any) -> Any:
    floats = any(isinstance(each, Tensor) and each.is_floating_point() for each in (left, right))
    if floats:
        return left / right
    both = isinstance(left, int) and isinstance(right, int)
    return left // right if both else torch.div(left, right, rounding_mode="trunc")


def _mean(
    x: Tensor, axes: Sizes | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    mean: Tensor = _full(x).mean(axes or tuple(range(x.dim())), keepdim=bool(keepdims))
    return mean


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return functional.gelu(x, approximate=approximate)


def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


def _identity(x: Any) -> Any:
    return x


def cast(x: Any, kind: torch.dtype) -> Any:
    """Convert a tensor to a type; sizes, which are Python integers, are returned unchanged."""
    return x.to(kind) if isinstance(x, Tensor) else x


def _full(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype in HALVES else x


def _in_full(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that converts 16-bit inputs to FP32 first."""

    def call(*inputs: Any) -> Tensor:
        return function(*map(_full, inputs))

    return call


def _folded(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Extend a function of two inputs to any number of inputs."""

    def call(*inputs: Any) -> Any:
        return reduce(function, inputs)

    return call


OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs, "Add": operator.add, "And": torch.logical_and, "BitwiseAnd": operator.and_,
    "Clip": _clip, "Concat": _concat, "CumSum": _cumsum, "DequantizeLinear": dequantize, "Div": _divide,
    "Equal": torch.eq,
    "Erf": torch.erf, "Exp": _in_full(torch.exp), "Expand": _expand, "Gather": _gather,
    "GatherND": _gather_nd,
    "Gelu": _gelu, "Gemm": gemm, "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Identity": _identity,
    "LayerNormalization": _layer_norm, "Less": torch.lt, "LessOrEqual": torch.le, "Log": _in_full(torch.log),
    "MatMul": matmul, "Max": _folded(torch.maximum), "Min": _folded(torch.minimum), "Mul": operator.mul,
    "Neg": operator.neg, "Not": torch.logical_not, "Or": torch.logical_or, "Pad": _pad,
    "Pow": _in_full(torch.pow),
    "QuantizeLinear": quantize, "Reciprocal": _in_full(torch.reciprocal), "ReduceMean": _mean,
    "Relu": torch.relu,
    "Reshape": _reshape, "Shape": _shape, "Sigmoid": torch.sigmoid, "Slice": _slice,
    "Softmax": _softmax, "Split": _split, "Sqrt": _in_full(torch.sqrt),
    "Squeeze": _squeeze, "Sub": operator.sub, "Sum": _folded(operator.add), "Tanh": torch.tanh,
    "Transpose": _transpose, "Unsqueeze": _unsqueeze, "Where": torch.where,
}  # fmt: skip
"""Functions by operator; ``Cast`` and ``Range`` depend on a graph's type and device: see ``translate``."""
IN_PYTHON: dict[str, frozenset[int]] = {
    "Expand": frozenset({1}), "Reshape": frozenset({1}), "Slice": frozenset({1, 2, 3, 4}),
    "Squeeze": frozenset({1}), "Unsqueeze": frozenset({1}), "Pad": frozenset({1, 3}),
    "CumSum": frozenset({1}),
    "Range": frozenset({0, 1, 2}), "ReduceMean": frozenset({1}), "Split": frozenset({1}),
}  # fmt: skip
"""Positions of the inputs that are Python integers or tuples, by operator."""
