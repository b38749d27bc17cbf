"""The form of fake quantization that compilers see: the numbers and gradients of the other one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qexp.quant.fake_quantize import Bounds, FakeQuantizeLearned, gradient_scale
from qexp.quant.grid import Grid
from qexp.quant.traced import traced_fake_quantize

ACTIVATION = Grid(8, signed=False, symmetric=False)
WEIGHT = Grid(4, signed=True, symmetric=True, narrow=True, axis=0)


def _both(
    x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, grid: Grid, parts: int
) -> list[tuple[torch.Tensor, ...]]:
    """Values, gradient of x and gradient of the scale, of the traced form and of the other."""
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    found = []
    for traced in (True, False):
        leaf, learned = x.clone().requires_grad_(), scale.clone().requires_grad_()
        if traced:
            y = traced_fake_quantize(leaf, learned, zero, grid, parts)
        else:
            factor = gradient_scale(x.numel() * parts // scale.numel(), grid)
            bounds = Bounds.of(grid, zero, dimensions=x.dim())
            y = FakeQuantizeLearned.apply(leaf, grid.expand(learned, x.dim()), bounds, factor)
        y.backward(upstream)
        found.append((y.detach(), leaf.grad, learned.grad))
    return found


@given(seed=st.integers(0, 1000), zero=st.integers(0, 255), parts=st.integers(1, 8))
def test_activations(seed: int, zero: int, parts: int) -> None:
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(seed)) * 3
    points = torch.tensor(zero, dtype=torch.int32)
    traced, plain = _both(x, torch.tensor(0.017), points, ACTIVATION, parts)
    assert torch.equal(traced[0], plain[0])
    assert torch.equal(traced[1], plain[1])
    assert traced[2] == pytest.approx(float(plain[2]), rel=1e-3, abs=1e-4)


@given(seed=st.integers(0, 1000))
def test_weights(seed: int) -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    scale = torch.linspace(0.05, 0.3, 6)
    traced, plain = _both(x, scale, torch.zeros(6, dtype=torch.int32), WEIGHT, 1)
    assert torch.equal(traced[0], plain[0])
    assert torch.equal(traced[1], plain[1])
    assert torch.allclose(traced[2], plain[2], rtol=1e-3, atol=1e-4)


def test_narrow_values_are_quantized_in_fp32() -> None:
    x = torch.linspace(-3, 3, 77)
    narrow = x.to(torch.bfloat16)
    scale, zero = torch.tensor(0.01), torch.tensor(128, dtype=torch.int32)
    expected = traced_fake_quantize(narrow.float(), scale, zero, ACTIVATION, 1)
    assert torch.equal(traced_fake_quantize(narrow, scale, zero, ACTIVATION, 1), expected.to(torch.bfloat16))
