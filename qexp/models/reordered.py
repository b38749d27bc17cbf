"""Evaluation of a model in another float32 arithmetic, which samples the error of a correct engine.

IEEE 754 leaves the order of a sum, and the last bit of ``exp``, ``erf`` or ``tanh``, to the implementation of
an operator; PyTorch, ONNX Runtime and oneDNN each choose their own. Reversing every contraction and every
normalization, and rounding elementary functions from float64, is one more legitimate choice. Its distance to
PyTorch is therefore a sample of the distance of a correct engine, at the cost of one evaluation. Float64
throughout is no such sample: it also omits the roundings of single operators, in which float32
implementations agree (docs/gate.md compares both).

In a small model, the other order may not change any value of a grid, while an engine changes one that all
rows share. ``moved`` shows the effect of such a step on the logits: it perturbs each result by a random
relative error that changes many values.

For FP16 and BF16 engines, the result of every operator is rounded to that type, as in the engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from qexp.config import Precision

aten = torch.ops.aten
HALVES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""Types to which results of operators are rounded; other precisions keep float32."""


MOVED = 2.0**-16
"""Largest relative perturbation that shows the effect of steps of a grid; one rounding has 2 ** -24."""


def reordered(precision: Precision = "fp32", *, moved: float = 0.0) -> AbstractContextManager[Any]:
    """Compute everything inside the context in the other order and in the type of ``precision``.

    Args:
        precision: ``fp16`` and ``bf16`` round the result of each operator; ``int8`` is the same as ``fp32``,
            since fake quantization is part of the model.
        moved: Largest relative perturbation of the result of each sum or function, drawn uniformly.
    """
    return _Reordered(HALVES.get(precision), moved)


class _Reordered(TorchDispatchMode):
    """Dispatch mode that replaces sums and elementary functions, and perturbs or rounds results."""

    def __init__(self, half: torch.dtype | None, moved: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._half, self._moved = half, moved
        self._draw = torch.Generator().manual_seed(0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        compute = OPERATORS.get(func, func)
        if self._moved and (func in OPERATORS or func is aten.embedding.default):
            return self._perturbed(compute(*args, **(kwargs or {})))
        if self._half is None:
            return compute(*args, **(kwargs or {}))
        # Arguments are rounded, too: a runtime reads the weights in that type from its file.
        return _rounded(compute(*_rounded(args, self._half), **(kwargs or {})), self._half)

    def _perturbed(self, result: Any) -> Any:
        if isinstance(result, tuple):
            return self._perturbed(result[0]), *result[1:]
        shares = torch.rand(result.shape, generator=self._draw).to(result.device)
        return result * (1 + self._moved * (2 * shares - 1))


def _rounded(result: Any, half: torch.dtype) -> Any:
    if isinstance(result, tuple | list):
        return type(result)(_rounded(item, half) for item in result)
    if isinstance(result, Tensor) and result.dtype is torch.float32:
        return result.to(half).to(torch.float32)
    return result


def _mm(a: Tensor, b: Tensor) -> Tensor:
    return torch.mm(a.flip(-1), b.flip(-2))


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a.flip(-1), b.flip(-2))


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a.flip(-1), b.flip(max(-2, -b.dim())))


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * bias + alpha * _mm(a, b)


def _baddbmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * bias + alpha * _bmm(a, b)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = torch.matmul(x.flip(-1), weight.flip(-1).transpose(-1, -2))
    return y if bias is None else y + bias


def _layer_norm(
    x: Tensor,
    shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    return _native_layer_norm(x, shape, weight=weight, bias=bias, eps=eps)[0]


def _native_layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    axes = list(range(-len(shape), 0))
    reversed_parameters = [None if each is None else each.flip(axes) for each in (weight, bias)]
    y, mean, rstd = aten.native_layer_norm.default(x.flip(axes), shape, *reversed_parameters, eps)
    return y.flip(axes), mean, rstd


def _softmax(x: Tensor, dim: int, *_: Any) -> Tensor:
    return torch.softmax(x.double(), dim).to(x.dtype)


def _double(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """Return an elementary function that is computed in float64 and rounded once."""

    def compute(x: Tensor, **options: Any) -> Tensor:
        return function(x.double(), **options).to(x.dtype)

    return compute


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    """Return attention as reordered matmuls and softmax; dropout is ignored, as models are only evaluated."""
    scale = options.get("scale") or query.shape[-1] ** -0.5
    scores = _matmul(query * scale, key.transpose(-1, -2))
    if is_causal:
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~causal, float("-inf"))
    if attn_mask is not None:
        is_boolean = attn_mask.dtype is torch.bool
        scores = scores.masked_fill(~attn_mask, float("-inf")) if is_boolean else scores + attn_mask
    return _matmul(_softmax(scores, -1), value)


OPERATORS: Mapping[Any, Callable[..., Any]] = {
    aten.mm.default: _mm,
    aten.bmm.default: _bmm,
    aten.matmul.default: _matmul,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _baddbmm,
    aten.linear.default: _linear,
    aten.layer_norm.default: _layer_norm,
    aten.native_layer_norm.default: _native_layer_norm,
    aten.softmax.int: _softmax,
    aten._softmax.default: _softmax,
    aten.scaled_dot_product_attention.default: _attention,
    aten.gelu.default: _double(aten.gelu.default),
    aten.tanh.default: _double(aten.tanh.default),
    aten.exp.default: _double(aten.exp.default),
    aten.erf.default: _double(aten.erf.default),
    aten.sigmoid.default: _double(aten.sigmoid.default),
}
"""Replacement of each operator; all others are elementwise and rounded once in any implementation."""
