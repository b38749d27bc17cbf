"""Dropout on a CPU, at a fraction of the time of torch's.

torch draws a double for each value, one after another. Sixteen random bits decide as well: the rate is
rounded to a 65536th, and what is kept is scaled by its exact share, so the expectation is that of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from qexp.config import Numerics

STEPS = 1 << 16
"""Values of 16 random bits."""
FEWEST = 4096
"""Values of a tensor from which on fewer random numbers pay for two more operators."""


def faster_dropout(numerics: Numerics) -> AbstractContextManager[Any]:
    """Return a context in which a training on a CPU draws its dropout faster; the compiler has its own."""
    return FastDropout() if numerics.device == "cpu" and not numerics.compile else nullcontext()


class FastDropout(TorchFunctionMode):
    """Mode that computes ``torch.nn.functional.dropout`` of tensors on a CPU with :class:`Dropout16`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the result of ``func``, or of the faster dropout in its place."""
        if func is functional.dropout:
            return _dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Return what ``functional.dropout`` of the same arguments returns, with another draw."""
    dropped = round(p * STEPS)
    if not training or inplace or not input.is_cpu or input.numel() < FEWEST or not 0 < dropped < STEPS:
        return functional.dropout(input, p, training, inplace)
    return Dropout16.apply(input, dropped)  # type: ignore[no-any-return,no-untyped-call]


class Dropout16(torch.autograd.Function):
    """Dropout that is decided by 16 random bits a value; a byte a value is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, dropped: int) -> Tensor:
        """Return the input with ``dropped`` of 65536 values zero on average, and the others scaled."""
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
        bits = words.view(torch.int16)[: input.numel()].view(input.shape)
        kept = bits >= dropped - STEPS // 2
        ctx.save_for_backward(kept)
        ctx.scale = STEPS / (STEPS - dropped)
        return _scaled(input, kept, ctx.scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return the gradient of the input."""
        (kept,) = ctx.saved_tensors
        return _scaled(grad_outputs[0], kept, ctx.scale), None


def _scaled(values: Tensor, kept: Tensor, scale: float) -> Tensor:
    """Return the kept values times a scale; bytes become numbers by the fastest of torch's operators."""
    return kept.view(torch.int8).to(values.dtype).mul_(scale).mul_(values)
