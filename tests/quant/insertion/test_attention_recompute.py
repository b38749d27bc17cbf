"""Attention that is computed again in the backward pass, compared with autograd on the same arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qexp.quant.grid import Grid
from qexp.quant.insertion import attention_recompute
from qexp.quant.insertion.attention import KEEPS_PROBABILITIES, TAPS, attend
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode
from qexp.quant.row_groups import row_groups

ROWS, HEADS, LENGTH, WIDTH = 5, 2, 9, 4
LOWEST = torch.finfo(torch.float32).min


@pytest.fixture(params=[1, 2, ROWS], autouse=True)
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    limits = {"cpu": request.param, "cuda": request.param}

    def groups(query: Tensor, *_: Any) -> Iterator[slice]:
        return row_groups(query, 1, limits)

    monkeypatch.setattr(attention_recompute, "row_groups", groups)
    monkeypatch.setattr(attention_recompute, "KEPT_BYTES", 0)
    return int(request.param)


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    torch.manual_seed(0)
    shape = (ROWS, HEADS, LENGTH, WIDTH)
    tensors = {name: torch.randn(shape, requires_grad=True) for name in ("query", "key", "value")}
    padding = torch.zeros(ROWS, 1, 1, LENGTH)
    padding[1, ..., 6:] = padding[4, ..., 3:] = LOWEST
    bias = torch.randn(1, HEADS, LENGTH, LENGTH, requires_grad=True)
    return tensors | {"attention_mask": padding.expand(-1, -1, LENGTH, -1), "position_bias": bias}


def quantizer(mode: QuantizerMode = QuantizerMode.FROZEN, dynamic: str | None = None) -> Quantizer:
    grid = Grid(4, signed=False, symmetric=False, dynamic=dynamic)
    made = Quantizer("probabilities", grid)
    if mode is not QuantizerMode.OBSERVING:
        made.set_range(torch.tensor(0.0), torch.tensor(0.4))
    made.switch(mode)
    return made


def module(probs: Quantizer | None = None, *, keeps: bool = False) -> nn.Module:
    made = nn.Module().train()
    setattr(made, TAPS, {} if probs is None else {"matmul.probs": probs})
    setattr(made, KEEPS_PROBABILITIES, keeps)
    return made


def context_and_gradients(made: nn.Module, inputs: dict[str, Tensor], **settings: Any) -> list[Tensor]:
    context, _ = attend(made, **inputs, **settings)
    leaves = [each for each in inputs.values() if each.requires_grad]
    weights = torch.linspace(-1, 1, context.numel()).view_as(context)
    return [context.detach(), *torch.autograd.grad((context * weights).sum(), leaves)]


@pytest.mark.parametrize(
    "probs", [None, quantizer(), quantizer(dynamic="token")], ids=["float", "w4", "token"]
)
def test_gradients_are_those_of_autograd(probs: Quantizer | None, inputs: dict[str, Tensor]) -> None:
    found = context_and_gradients(module(probs), inputs)
    expected = context_and_gradients(module(probs, keeps=True), inputs)
    assert attend(module(probs), **inputs)[1] is None
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


def test_dropout_is_the_same_in_both_passes(inputs: dict[str, Tensor]) -> None:
    doubles = {
        name: each.detach().double().requires_grad_(each.requires_grad) for name, each in inputs.items()
    }

    def context(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        torch.manual_seed(3)
        mask = doubles["attention_mask"].clamp(min=-1e4)
        return attend(module(), query, key, value, mask, dropout=0.5, position_bias=bias)[0]

    leaves = [each for each in doubles.values() if each.requires_grad]
    assert torch.autograd.gradcheck(context, leaves, fast_mode=True)


def test_a_single_group_draws_what_plain_attention_draws(inputs: dict[str, Tensor], at_once: int) -> None:
    def drawn(keeps: bool) -> list[Tensor]:
        torch.manual_seed(4)
        return context_and_gradients(module(keeps=keeps), inputs, dropout=0.5)

    if at_once == ROWS:
        for own, other in zip(drawn(False), drawn(True), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


def test_the_generator_goes_on_as_if_nothing_was_drawn_twice(inputs: dict[str, Tensor]) -> None:
    context, _ = attend(module(), **inputs, dropout=0.5)
    before = torch.get_rng_state()
    context.sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_state_of_the_generator_is_kept_for_dropout_alone(
    dropout: float, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[Tensor] = []
    monkeypatch.setattr(torch, "get_rng_state", lambda: states.append(torch.zeros(0)) or states[0])
    attend(module(), **inputs, dropout=dropout)
    assert len(states) == (dropout > 0)


def test_no_matrix_of_scores_is_kept(inputs: dict[str, Tensor]) -> None:
    sizes: list[int] = []

    def kept(tensor: Tensor) -> Tensor:
        sizes.append(tensor.untyped_storage().nbytes())
        return tensor

    probs = quantizer()
    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        attend(module(probs), **inputs, dropout=0.5)
    assert max(sizes) < ROWS * HEADS * LENGTH * LENGTH * 4
    assert probs._memo is None


@pytest.mark.parametrize(
    "probs",
    [
        quantizer(QuantizerMode.LEARNED), quantizer(QuantizerMode.EMA), quantizer(QuantizerMode.OBSERVING),
        quantizer(dynamic="tensor"),
    ],
    ids=["learned", "ema", "observing", "range of the tensor"],
)  # fmt: skip
def test_what_depends_on_the_whole_batch_sees_it_once(probs: Quantizer, inputs: dict[str, Tensor]) -> None:
    _, probabilities = attend(module(probs), **inputs)
    assert probabilities is not None


def test_evaluation_returns_probabilities(inputs: dict[str, Tensor]) -> None:
    assert attend(module().eval(), **inputs)[1] is not None
    with torch.no_grad():
        assert attend(module(), **inputs)[1] is not None


def test_mixed_precision_is_that_of_the_forward_pass(inputs: dict[str, Tensor]) -> None:
    def mixed(keeps: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            context, _ = attend(module(keeps=keeps), **inputs)
        leaves = [each for each in inputs.values() if each.requires_grad]
        return [context, *torch.autograd.grad(context.float().sum(), leaves)]

    for own, other in zip(mixed(False), mixed(True), strict=True):
        assert own.dtype == other.dtype
        torch.testing.assert_close(own, other, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("spare", [0, -1])
def test_small_scores_are_kept(
    spare: int, inputs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a batch that take exactly the limit, and not those that take a byte more."""
    limit = ROWS * HEADS * LENGTH * LENGTH * 4 + spare
    monkeypatch.setattr(attention_recompute, "KEPT_BYTES", limit)
    _, probabilities = attend(module(), **inputs)
    assert (probabilities is None) == (spare < 0)
