"""Dropout by 16 random bits: shares, scale, gradients, and where torch's stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from qexp.config import Numerics
from qexp.training.dropout import FEWEST, FastDropout, faster_dropout

VALUES = torch.linspace(1, 2, 200_000).reshape(4, -1)


@given(st.floats(0.01, 0.99))
def test_the_share_and_the_scale_are_those_of_the_rate(rate: float) -> None:
    torch.manual_seed(0)
    with FastDropout():
        found = functional.dropout(VALUES, rate)
    kept = found != 0
    assert float(kept.float().mean()) == pytest.approx(1 - rate, abs=0.006)  # five standard errors
    torch.testing.assert_close(found[kept], VALUES[kept] / (1 - rate), rtol=2e-3, atol=0)


def test_the_scale_is_the_inverse_of_the_share_that_is_kept() -> None:
    with FastDropout():
        found = functional.dropout(torch.ones(FEWEST), 0.3)
    assert float(found.max()) == pytest.approx(65536 / (65536 - round(0.3 * 65536)), rel=1e-7)


def test_values_next_to_each_other_are_decided_apart() -> None:
    torch.manual_seed(1)
    with FastDropout():
        kept = (functional.dropout(torch.ones(400_000), 0.5) != 0).float() * 2 - 1
    for distance in (1, 2, 3, 4, 8):
        assert abs(float((kept[distance:] * kept[:-distance]).mean())) < 0.01


def test_gradients_pass_where_values_did_with_the_same_scale() -> None:
    values = VALUES.clone().requires_grad_()
    with FastDropout():
        found = functional.dropout(values, 0.4)
    (gradient,) = torch.autograd.grad(found.sum(), values)
    torch.testing.assert_close(gradient * values, found)


def test_the_seed_decides() -> None:
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        with FastDropout():
            draws.append(nn.Dropout(0.2)(VALUES))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        (VALUES, {"p": 0.3, "training": False}),
        (VALUES, {"p": 0.0}),
        (VALUES, {"p": 1.0}),
        (torch.ones(FEWEST - 1), {"p": 0.3}),
    ],
    ids=["evaluation", "none", "all", "small"],
)
def test_the_rest_is_torchs(values: torch.Tensor, settings: dict[str, float]) -> None:
    torch.manual_seed(0)
    wanted = functional.dropout(values, **settings)
    torch.manual_seed(0)
    with FastDropout():
        assert torch.equal(functional.dropout(values, **settings), wanted)


def test_a_compiler_and_a_gpu_have_their_own() -> None:
    assert isinstance(faster_dropout(Numerics()), FastDropout)
    for fields in ({"compile": True}, {"device": "gpu"}):
        assert not isinstance(faster_dropout(Numerics(**fields)), FastDropout)
