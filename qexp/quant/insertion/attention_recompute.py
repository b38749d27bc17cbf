"""Attention that is computed a second time in the backward pass, a few rows of the batch at a time.

Training would otherwise keep four matrices [B, heads, T, S] of each layer for the backward pass:
probabilities, the mask of their dropout, and the probabilities before and after their quantizer. They grow
with the square of the length and are most of a training's memory from some 200 tokens on. To compute the core
of attention again from queries, keys and values is the selective recomputation of Korthikanti et al. 2022
(arXiv 2205.05198). Rows of a batch do not depend on one another, so both passes go through them in groups
whose scores stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from qexp.quant.row_groups import row_groups

Core = Callable[..., Tensor]
"""Function from query, key, value, mask and position bias of some rows to their context [b, heads, T, d]."""

GROUP_BYTES = {"cpu": 8 << 20, "cuda": 1 << 30}
"""Scores of a group of rows: on a CPU what its cache holds, on a GPU enough to fill it."""


class RecomputedAttention(torch.autograd.Function):
    """The core of attention, of which only the inputs are kept for the backward pass.

    The core reads no trained parameter, and gives the same each time but for dropout, whose numbers are drawn
    again from the generator's state of the forward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        core: Core,
        draws: bool,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        position_bias: Tensor | None,
    ) -> Tensor:
        """Return the context [B, T, heads, d].

        Args:
            ctx: Context of autograd.
            core: Function of some rows.
            draws: Whether the function draws random numbers, which are those of dropout.
            query: Queries [B, heads, T, d].
            key: Keys [B, heads, S, d].
            value: Values [B, heads, S, d].
            mask: Mask [B or 1, 1 or heads, T, S], or None.
            position_bias: Bias [B or 1, heads, T, S], or None.
        """
        inputs = (query, key, value, mask, position_bias)
        ctx.save_for_backward(*inputs)
        ctx.core, ctx.random = core, _random_state(query) if draws else None
        ctx.autocast = _autocast_of(query)
        rows, context = query.size(0), None
        for group in _groups(query, key):
            parts = (_rows_of(each, group, rows) for each in inputs)
            some = core(*parts).transpose(1, 2)
            if context is None:  # of the type that mixed precision gives
                context = some.new_empty(rows, *some.shape[1:])
            context[group] = some
        return context  # type: ignore[return-value]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return the gradients of query, key, value and position bias."""
        inputs, (grad,) = ctx.saved_tensors, grad_outputs
        wanted = [
            each is not None and need for each, need in zip(inputs, ctx.needs_input_grad[2:], strict=True)
        ]
        totals = [torch.zeros_like(each) if want else None for each, want in zip(inputs, wanted, strict=True)]
        rows = inputs[0].size(0)
        random = nullcontext() if ctx.random is None else _random_from(ctx.random)
        with random, ctx.autocast():
            for group in _groups(inputs[0], inputs[1]):
                parts = [_rows_of(each, group, rows) for each in inputs]
                found = iter(_gradients(ctx.core, parts, wanted, grad[group].transpose(1, 2)))
                for total in (each for each in totals if each is not None):
                    _rows_of(total, group, rows).add_(next(found))
        return None, None, *totals


def _gradients(
    core: Core, parts: list[Tensor | None], wanted: list[bool], grad: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of the wanted inputs of one group of rows."""
    leaves = [
        each.detach().requires_grad_(want) if each is not None else None
        for each, want in zip(parts, wanted, strict=True)
    ]
    with torch.enable_grad():
        context = core(*leaves)
    return torch.autograd.grad(
        context, [each for each in leaves if each is not None and each.requires_grad], grad
    )


def _groups(query: Tensor, key: Tensor) -> Iterator[slice]:
    """Return groups of rows of a batch [B, heads, T, d]."""
    scores = query.size(1) * query.size(2) * key.size(2) * query.element_size()
    return row_groups(query, scores, GROUP_BYTES)


def _rows_of(each: Any, group: slice, rows: int) -> Any:
    """Return the rows of a group; what all rows share stays whole."""
    return each if each is None or each.size(0) != rows else each[group]


def _random_state(query: Tensor) -> tuple[torch.device, Tensor]:
    device = query.device
    state = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
    return device, state


@contextmanager
def _random_from(state: tuple[torch.device, Tensor]) -> Iterator[None]:
    """Draw from a state of the generator; that of the present is restored."""
    device, numbers = state
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        if device.type == "cuda":
            torch.cuda.set_rng_state(numbers, device)
        else:
            torch.set_rng_state(numbers)
        yield


def _autocast_of(query: Tensor) -> Callable[[], AbstractContextManager[Any]]:
    """Return what enters the mixed precision of the forward pass."""
    kind = query.device.type
    if not torch.is_autocast_enabled(kind):
        return nullcontext
    dtype = torch.get_autocast_dtype(kind)
    return lambda: torch.autocast(kind, dtype)
