"""Gradients of fake quantization compared with plain autograd and torch's learnable operator."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qexp.quant.fake_quantize import Bounds, FakeQuantizeFrozen, FakeQuantizeLearned, gradient_scale
from qexp.quant.grid import Grid, fake_quantize, scale_and_zero_point


def plain(x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    """The same in autograd's own words: rounding passes its gradient through."""
    v = (x / scale).clamp((grid.qmin - zero_point).to(x.dtype), (grid.qmax - zero_point).to(x.dtype))
    return (v + (v.round() - v).detach()) * scale


def case(
    seed: int, bits: int, symmetric: bool, axis: int | None, shape: tuple[int, ...]
) -> tuple[Grid, Tensor, Tensor, Tensor]:
    """A grid, values of which a part lies outside, and a range."""
    torch.manual_seed(seed)
    grid = Grid(bits, signed=symmetric, symmetric=symmetric, axis=axis)
    x = torch.randn(shape) * 3
    channels = () if axis is None else (shape[axis],)
    low, high = -torch.rand(channels) * 3 - 0.2, torch.rand(channels) * 3 + 0.2
    return grid, x, *scale_and_zero_point(low, high, grid)


CASES = st.tuples(
    st.integers(0, 1000),
    st.sampled_from([2, 4, 8, 16]),
    st.booleans(),
    st.sampled_from([None, 0, 1]),
    st.sampled_from([(6, 10), (3, 5, 7), (2, 4, 3, 5)]),
)


@settings(deadline=None, max_examples=60)
@given(CASES)
def test_frozen_forward_and_gradient(drawn: tuple[int, int, bool, int | None, tuple[int, ...]]) -> None:
    grid, values, scale, zero = case(*drawn)
    expanded = grid.expand(scale, values.dim())
    bounds = Bounds.of(grid, zero, dimensions=values.dim())
    grad = torch.randn_like(values)
    reference = values.clone().requires_grad_()
    plain(reference, expanded, grid.expand(zero, values.dim()), grid).backward(grad)
    x = values.clone().requires_grad_()
    y = FakeQuantizeFrozen.apply(x, expanded, bounds)
    assert torch.equal(y, fake_quantize(values, scale, zero, grid))
    y.backward(grad)
    torch.testing.assert_close(x.grad, reference.grad)


@settings(deadline=None, max_examples=60)
@given(CASES)
def test_learned_forward_and_gradients(drawn: tuple[int, int, bool, int | None, tuple[int, ...]]) -> None:
    grid, values, scale, zero = case(*drawn)
    dims, grad = values.dim(), torch.randn_like(values)
    x, s = values.clone().requires_grad_(), scale.clone().requires_grad_()
    bounds = Bounds.of(grid, zero, dimensions=dims)
    y = FakeQuantizeLearned.apply(x, grid.expand(s, dims), bounds, 0.25)
    assert torch.equal(y, fake_quantize(values, scale, zero, grid))
    y.backward(grad)
    exact_x, exact_s = values.double().requires_grad_(), scale.double().requires_grad_()
    plain(exact_x, grid.expand(exact_s, dims), grid.expand(zero, dims), grid).backward(grad.double())
    assert x.grad is not None
    assert s.grad is not None
    assert exact_s.grad is not None
    torch.testing.assert_close(x.grad.double(), exact_x.grad)
    magnitude = float((grad.abs() * y.detach().abs()).sum() / scale.min())
    torch.testing.assert_close(s.grad.double(), exact_s.grad * 0.25, rtol=1e-4, atol=1e-6 * magnitude)


@pytest.mark.parametrize("bits", [4, 8])
def test_against_torchs_learnable_operator(bits: int) -> None:
    grid, values, scale, zero = case(5, bits, False, None, (32, 64))
    # torch passes the gradient up to half a step beyond the ends; leave out values there.
    steps = values / scale + zero
    values[
        ((steps < grid.qmin) & (steps > grid.qmin - 1)) | ((steps > grid.qmax) & (steps < grid.qmax + 1))
    ] = 0
    factor, grad = gradient_scale(values.numel(), grid), torch.randn(32, 64)
    ours_x, ours_s = values.clone().requires_grad_(), scale.clone().requires_grad_()
    bounds = Bounds.of(grid, zero, dimensions=2)
    FakeQuantizeLearned.apply(ours_x, ours_s, bounds, factor).backward(grad)
    theirs_x, theirs_s = values.clone().requires_grad_(), scale.reshape(1).clone().requires_grad_()
    torch._fake_quantize_learnable_per_tensor_affine(
        theirs_x, theirs_s, zero.float().reshape(1), grid.qmin, grid.qmax, factor
    ).backward(grad)
    assert ours_s.grad is not None
    assert theirs_s.grad is not None
    torch.testing.assert_close(ours_x.grad, theirs_x.grad)
    torch.testing.assert_close(ours_s.grad, theirs_s.grad[0], rtol=1e-4, atol=1e-4)


def test_transposed_heads_have_the_same_gradient() -> None:
    grid, values, scale, zero = case(1, 8, True, None, (2, 6, 4, 8))
    heads = values.transpose(1, 2)
    bounds = Bounds.of(grid, zero, dimensions=4)
    grads = []
    for layout in (heads, heads.contiguous()):
        x, s = layout.detach().requires_grad_(), scale.clone().requires_grad_()
        torch.manual_seed(0)
        y = FakeQuantizeLearned.apply(x, s, bounds, 1.0)
        assert y.is_contiguous()
        y.backward(torch.randn(2, 4, 6, 8))
        grads.append((x.grad, s.grad))
    assert torch.equal(grads[0][0], grads[1][0])  # type: ignore[arg-type]
    torch.testing.assert_close(grads[0][1], grads[1][1], rtol=1e-4, atol=1e-4)


def test_ends_of_the_range_count_as_inside() -> None:
    grid = Grid(8, signed=True, symmetric=True, narrow=True)
    x = torch.tensor([-12.7, -12.71, 0.0, 12.7, 12.71], requires_grad=True)
    scale, zero = scale_and_zero_point(torch.tensor(-12.7), torch.tensor(12.7), grid)
    bounds = Bounds.of(grid, zero, dimensions=1)
    FakeQuantizeFrozen.apply(x, scale, bounds).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 0, 1, 1, 0]


def test_nan_stays_visible_in_training() -> None:
    grid = Grid(8, signed=True, symmetric=True)
    bounds = Bounds.of(grid, torch.tensor(0), dimensions=1)
    y = FakeQuantizeFrozen.apply(torch.tensor([float("nan"), 1.0]), torch.tensor(0.1), bounds)
    assert y.isnan().tolist() == [True, False]
