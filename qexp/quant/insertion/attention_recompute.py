"""Attention that is computed a second time in the backward pass, a few rows of the batch at a time.

Training would otherwise keep four matrices [B, heads, T, S] of each layer for the backward pass:
probabilities, the mask of their dropout, and the probabilities before and after their quantizer. They grow
with the square of the length and are most of a training's memory from some 200 tokens on. To compute the core
of attention again from queries, keys and values is the selective recomputation of Korthikanti et al. 2022
(arXiv 2205.05198). Rows of a batch do not depend on one another, so both passes go through them in groups
whose scores stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from qexp.quant.row_groups import row_groups

Core = Callable[..., Tensor]
"""Function from query, key, mask and position bias of some rows to what values are multiplied with, the
probabilities after dropout and their quantizer, [b, heads, T, S]."""

KEPT_BYTES = 16 << 20
"""Scores of a layer up to which they are kept: those of short rows are little memory, and take time again."""
GROUP_BYTES = {"cpu": 8 << 20, "cuda": 1 << 30}
"""Scores of a group of rows: on a CPU what its cache holds, on a GPU enough to fill it."""


class RecomputedAttention(torch.autograd.Function):
    """Attention of which only the inputs are kept for the backward pass.

    The core reads no trained parameter, and gives the same each time but for dropout, whose numbers are drawn
    again from the generator's state of the forward pass, and within its function modes, such as that of a
    faster dropout: ``Tensor.backward`` leaves them for the time. The product with the values is not computed
    again: its gradients need the probabilities alone.
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
        kept_for_backward = (query, key, value, mask, position_bias)
        ctx.save_for_backward(*kept_for_backward)
        ctx.core, ctx.random = core, _random_state(query) if draws else None
        ctx.autocast, ctx.modes = _autocast_of(query), _get_current_function_mode_stack()
        rows, context = query.size(0), None
        for group in _groups(query, key):
            kept = core(*(_rows_of(each, group, rows) for each in (query, key, mask, position_bias)))
            some = torch.matmul(kept, value[group]).transpose(1, 2)
            if context is None:  # of the type that mixed precision gives
                context = some.new_empty(rows, *some.shape[1:])
            context[group] = some
        return context  # type: ignore[return-value]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Return the gradients of query, key, value and position bias."""
        query, key, value, *more = ctx.saved_tensors
        needs_query, needs_key, needs_value, *needs_more = ctx.needs_input_grad[2:]
        inputs, rows = (query, key, *more), query.size(0)
        needed = zip(inputs, (needs_query, needs_key, *needs_more), strict=True)
        totals = [torch.zeros_like(each) if each is not None and need else None for each, need in needed]
        of_value = torch.zeros_like(value) if needs_value else None
        random = nullcontext() if ctx.random is None else _random_from(ctx.random)
        with random, ctx.autocast(), _within(ctx.modes):
            for group in _groups(query, key):
                grad = grad_outputs[0][group].transpose(1, 2)
                parts = [_rows_of(each, group, rows) for each in inputs]
                leaves, kept = _again(ctx.core, parts, totals)
                if of_value is not None:
                    of_value[group] = torch.matmul(kept.detach().transpose(2, 3), grad)
                found = iter(_gradients(kept, leaves, torch.matmul(grad, value[group].transpose(2, 3))))
                for total in (each for each in totals if each is not None):
                    _rows_of(total, group, rows).add_(next(found))
        return None, None, *totals[:2], of_value, *totals[2:]


def _again(core: Core, parts: list[Any], totals: list[Tensor | None]) -> tuple[list[Tensor], Tensor]:
    """Return inputs of some rows that have gradients, as leaves, and the probabilities computed from them."""
    detached: list[Any] = [None if each is None else each.detach() for each in parts]
    leaves = [
        each.requires_grad_() for each, total in zip(detached, totals, strict=True) if total is not None
    ]
    with torch.enable_grad():
        kept = core(*detached)
    return leaves, kept


def _gradients(kept: Tensor, leaves: list[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of leaves; none where nothing is wanted of them."""
    return torch.autograd.grad(kept, leaves, grad.to(kept.dtype)) if leaves else ()


def are_small(query: Tensor, key: Tensor) -> bool:
    """Return whether the scores of a batch may as well be kept."""
    return query.size(0) * _row_bytes(query, key) <= KEPT_BYTES


def _groups(query: Tensor, key: Tensor) -> Iterator[slice]:
    """Return groups of rows of a batch [B, heads, T, d]."""
    return row_groups(query, _row_bytes(query, key), GROUP_BYTES)


def _row_bytes(query: Tensor, key: Tensor) -> int:
    """Return the bytes of the scores of one row."""
    return query.size(1) * query.size(2) * key.size(2) * query.element_size()


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


@contextmanager
def _within(modes: Sequence[TorchFunctionMode]) -> Iterator[None]:
    """Enter function modes, the outermost first."""
    with ExitStack() as entered:
        for mode in modes:
            entered.enter_context(mode)
        yield


def _autocast_of(query: Tensor) -> Callable[[], AbstractContextManager[Any]]:
    """Return what enters the mixed precision of the forward pass."""
    kind = query.device.type
    if not torch.is_autocast_enabled(kind):
        return nullcontext
    dtype = torch.get_autocast_dtype(kind)
    return lambda: torch.autocast(kind, dtype)
