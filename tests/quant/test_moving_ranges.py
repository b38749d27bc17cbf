"""Moving-average ranges, learned zero points and per-token ranges of a single quantizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.ao.quantization.observer import MovingAverageMinMaxObserver

from qexp.quant.fake_quantize import fake_quantize_dynamic, gradient_scale
from qexp.quant.grid import Grid, fake_quantize, scale_and_zero_point
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode

ASYMMETRIC = Grid(8, signed=False, symmetric=False)
SYMMETRIC = Grid(8, signed=True, symmetric=True)


def ready(grid: Grid, low: float = -1.0, high: float = 2.0, **attributes: Any) -> Quantizer:
    """A calibrated quantizer, off."""
    quantizer = Quantizer("value", grid)
    quantizer.set_range(torch.tensor(low), torch.tensor(high))
    for name, value in attributes.items():
        setattr(quantizer, name, value)
    return quantizer


@pytest.mark.parametrize("grid", [ASYMMETRIC, SYMMETRIC, Grid(4, signed=False, symmetric=True)])
@given(low=st.floats(-1e4, 0), high=st.floats(1e-4, 1e4))
@settings(deadline=None, max_examples=50)
def test_following_starts_at_exactly_the_range(grid: Grid, low: float, high: float) -> None:
    quantizer = ready(grid, low, high, decay=1.0)
    scale, zero_point = quantizer.scale.clone(), quantizer.zero_point.clone()
    quantizer.switch(QuantizerMode.EMA)
    quantizer(torch.randn(5))
    assert torch.equal(quantizer.scale, scale)
    assert torch.equal(quantizer.zero_point, zero_point)


@pytest.mark.parametrize("symmetric", [False, True])
def test_following_is_torchs_moving_average_observer(symmetric: bool) -> None:
    grid = SYMMETRIC if symmetric else ASYMMETRIC
    reference = MovingAverageMinMaxObserver(averaging_constant=0.1)
    reference(torch.tensor([-2.0 if symmetric else -1.0, 2.0]))
    quantizer = ready(grid, -2.0 if symmetric else -1.0, 2.0, decay=0.9)
    quantizer.switch(QuantizerMode.EMA)
    for step in range(20):
        torch.manual_seed(step)
        x = torch.randn(64) * (1 + step)
        y = quantizer(x)
        reference(x)
        scale, zero_point = scale_and_zero_point(reference.min_val, reference.max_val, grid)
        torch.testing.assert_close(quantizer.scale, scale)
        assert abs(int(quantizer.zero_point) - int(zero_point)) <= 1
        assert torch.equal(y, fake_quantize(x, quantizer.scale, quantizer.zero_point, grid))


def test_a_value_at_two_sites_is_followed_once_and_evaluation_leaves_ranges_alone() -> None:
    quantizer, x = ready(ASYMMETRIC, decay=0.5), torch.tensor([-3.0, 6.0])
    quantizer.switch(QuantizerMode.EMA)
    quantizer(quantizer(quantizer(x)))
    assert quantizer.ends is not None
    # The zero point is a whole number, so the calibrated ends are a part of a step away from -1 and 2.
    assert quantizer.ends.tolist() == pytest.approx([-2, 4], abs=0.01)
    before = quantizer.ends.clone()
    quantizer.eval()
    quantizer(x * 10)
    assert torch.equal(quantizer.ends, before)


def test_what_does_not_count_is_not_followed() -> None:
    counted = torch.tensor([[True], [False]])
    quantizer = ready(ASYMMETRIC, decay=0.0, counted=lambda x: counted)
    quantizer.switch(QuantizerMode.EMA)
    quantizer(torch.tensor([[-0.5, 0.25], [-99.0, 99.0]]))
    assert quantizer.ends is not None
    assert quantizer.ends.tolist() == [-0.5, 0.25]


def test_two_values_of_one_forward_pass_have_their_own_gradients() -> None:
    """The range moves between them; a backward pass needs the scale that each had."""
    quantizer = ready(SYMMETRIC, decay=0.0)
    quantizer.switch(QuantizerMode.EMA)
    x, y = torch.tensor([0.5, 1.0], requires_grad=True), torch.tensor([5.0, 10.0], requires_grad=True)
    (quantizer(x).sum() + quantizer(y).sum()).backward()
    assert x.grad is not None and x.grad.tolist() == [1, 1]
    assert y.grad is not None and y.grad.tolist() == [1, 1]


@pytest.mark.parametrize("mode", [QuantizerMode.EMA, QuantizerMode.LEARNED])
def test_leaving_a_phase_leaves_a_scale_and_a_zero_point(mode: QuantizerMode) -> None:
    quantizer, x = ready(ASYMMETRIC, decay=0.5, learns_zero_point=True), torch.linspace(-4, 3, 99)
    quantizer.switch(mode)
    if quantizer.shift is not None:
        with torch.no_grad():
            quantizer.shift.add_(0.1)
    quantizer(x)
    quantizer.forget()
    quantizer.eval()
    expected = quantizer(x).detach()
    quantizer.switch(QuantizerMode.FROZEN)
    assert set(quantizer.state_dict()) == {"scale", "zero_point"}
    assert torch.equal(quantizer(x), expected)
    assert torch.equal(fake_quantize(x, quantizer.scale, quantizer.zero_point, ASYMMETRIC), expected)


@pytest.mark.parametrize("mode", [QuantizerMode.EMA, QuantizerMode.LEARNED])
def test_a_state_is_loaded_into_the_same_phase(mode: QuantizerMode) -> None:
    one, other = (ready(ASYMMETRIC, decay=0.9, learns_zero_point=True) for _ in range(2))
    for quantizer in (one, other):
        quantizer.switch(mode)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(0.2)
    one(torch.randn(9) * 5)
    other.load_state_dict(one.state_dict())
    x = torch.randn(50)
    assert torch.equal(one(x), other(x))
    for quantizer in (one, other):
        quantizer.forget()
    assert torch.equal(one(x), other(x))
    assert torch.equal(one.scale, other.scale)


def plain(x: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> Tensor:
    """LSQ+ in autograd's own words, in float64: rounding passes its gradient through."""
    zero = zero + (zero.round() - zero).detach()
    q = x / scale + zero
    q = torch.maximum(torch.minimum(q, torch.tensor(float(grid.qmax))), torch.tensor(float(grid.qmin)))
    q = q + ((q - zero).round() + zero - q).detach()
    return (q - zero) * scale


@given(
    bits=st.sampled_from([2, 4, 8, 16]),
    shift=st.floats(-0.3, 0.3),
    shape=st.sampled_from([(40,), (3, 5, 7), (2, 4, 3, 5)]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_the_gradients_of_lsq_plus(bits: int, shift: float, shape: tuple[int, ...], seed: int) -> None:
    torch.manual_seed(seed)
    grid = Grid(bits, signed=False, symmetric=False)
    quantizer = ready(grid, learns_zero_point=True)
    quantizer.switch(QuantizerMode.LEARNED)
    assert quantizer.shift is not None and quantizer.log_scale is not None
    with torch.no_grad():
        quantizer.shift.fill_(shift)
    values, grad = torch.randn(shape) * 3, torch.randn(shape)
    x = values.clone().requires_grad_()
    quantizer(x).backward(grad)

    width = grid.qmax - grid.qmin
    moved = (quantizer.zero_point + quantizer.shift.detach() * width).clamp(grid.qmin, grid.qmax)
    exact = [each.double().requires_grad_() for each in (values, quantizer.scale, moved)]
    plain(*exact, grid).backward(grad.double())
    of_x, of_scale, of_zero = (each.grad for each in exact)
    assert of_scale is not None and of_zero is not None
    factor = gradient_scale(values.numel(), grid)
    torch.testing.assert_close(x.grad, of_x, check_dtype=False)
    close = {"check_dtype": False, "rtol": 1e-3, "atol": 1e-3 * factor * width * float(grad.abs().sum())}
    torch.testing.assert_close(quantizer.shift.grad, of_zero * factor * width, **close)
    torch.testing.assert_close(quantizer.log_scale.grad, of_scale * factor * float(quantizer.scale), **close)


def test_the_gradient_of_a_zero_point_is_that_of_torchs_learnable_operator() -> None:
    grid, factor = Grid(8, signed=False, symmetric=False), 0.25
    quantizer = ready(grid, learns_zero_point=True)
    quantizer.switch(QuantizerMode.LEARNED)
    torch.manual_seed(0)
    values, grad = torch.randn(500) * 3, torch.randn(500)
    steps = values / quantizer.scale + quantizer.zero_point
    values[((steps < 0) & (steps > -1)) | ((steps > 255) & (steps < 256))] = (
        0  # torch passes half a step more
    )
    quantizer(values).backward(grad)
    scale, zero = (
        each.float().reshape(1).clone().requires_grad_() for each in (quantizer.scale, quantizer.zero_point)
    )
    torch._fake_quantize_learnable_per_tensor_affine(
        values.requires_grad_(), scale, zero, 0, 255, factor
    ).backward(grad)
    assert quantizer.shift is not None and quantizer.shift.grad is not None and zero.grad is not None
    own = quantizer.shift.grad / 255 / gradient_scale(500, grid) * factor
    torch.testing.assert_close(own, zero.grad[0], rtol=1e-4, atol=1e-5)


def test_a_step_on_the_shift_finds_a_better_zero_point() -> None:
    """Values all lie above the range: only another zero point, or a far larger scale, represents them."""
    x = torch.linspace(1.0, 3.0, 200)
    quantizer = ready(ASYMMETRIC, -2.0, 2.0, learns_zero_point=True)
    quantizer.switch(QuantizerMode.LEARNED)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)
    before = float((quantizer(x) - x).detach().square().mean())
    for _ in range(100):
        optimizer.zero_grad()
        quantizer.forget()
        (quantizer(x) - x).square().sum().backward()
        optimizer.step()
    assert int(quantizer.current_zero_point()) < 100
    quantizer.switch(QuantizerMode.FROZEN)
    assert float((quantizer(x) - x).square().mean()) < before / 100


@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_a_zero_point_stays_on_its_grid(shift: float) -> None:
    quantizer = ready(ASYMMETRIC, learns_zero_point=True)
    quantizer.switch(QuantizerMode.LEARNED)
    assert quantizer.shift is not None
    with torch.no_grad():
        quantizer.shift.fill_(shift)
    assert int(quantizer.current_zero_point()) == (0 if shift < 0 else 255)
    quantizer.switch(QuantizerMode.FROZEN)
    quantizer.set_scale(quantizer.scale, quantizer.zero_point)


def test_symmetric_grids_have_no_shift() -> None:
    quantizer = ready(SYMMETRIC, learns_zero_point=True)
    quantizer.switch(QuantizerMode.LEARNED)
    assert [name for name, _ in quantizer.named_parameters()] == ["log_scale"]


TOKEN_GRIDS = [
    Grid(bits, signed=signed, symmetric=symmetric, dynamic="token")
    for bits in (4, 8)
    for signed, symmetric in ((True, True), (False, True), (False, False))
]


@pytest.mark.parametrize("grid", TOKEN_GRIDS, ids=str)
@given(
    shape=st.sampled_from([(3, 5), (2, 3, 8), (2, 4, 3, 7), (1, 1, 6), (2, 1, 3, 1), (4,)]),
    seed=st.integers(0, 1000),
    power=st.integers(-8, 8),
)
@settings(deadline=None, max_examples=25)
def test_each_token_has_the_range_of_its_values(
    grid: Grid, shape: tuple[int, ...], seed: int, power: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(shape) * 10.0**power
    if grid.symmetric and not grid.signed:
        x = x.abs()
    x.reshape(-1, shape[-1])[0] = 0  # a token of zeros alone
    tokens = x.reshape(-1, shape[-1])
    alone = replace(grid, dynamic="tensor")  # held against ONNX Runtime in test_dynamic.py
    expected = torch.stack([fake_quantize_dynamic(token, alone) for token in tokens])
    quantizer = Quantizer("value", grid)
    quantizer.switch(QuantizerMode.FROZEN)
    assert torch.equal(quantizer(x), expected.reshape(shape))
    with torch.no_grad():
        quantizer.forget()
        assert torch.equal(quantizer(x), expected.reshape(shape))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert torch.equal(fake_quantize_dynamic(x, grid, plain=True), expected.reshape(shape))


def test_heads_lie_as_attention_leaves_them() -> None:
    grid = TOKEN_GRIDS[-1]
    heads = torch.randn(2, 6, 4, 8).transpose(1, 2)
    assert torch.equal(fake_quantize_dynamic(heads, grid), fake_quantize_dynamic(heads.contiguous(), grid))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("grid", TOKEN_GRIDS, ids=str)
def test_the_whole_gradient_of_a_token_passes(grid: Grid, plain: bool) -> None:
    x, grad = torch.randn(3, 7, requires_grad=True), torch.randn(3, 7)
    fake_quantize_dynamic(x, grid, plain=plain).backward(grad)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", [QuantizerMode.FROZEN, QuantizerMode.LEARNED, QuantizerMode.EMA])
def test_a_dynamic_range_is_dynamic_in_every_phase(mode: QuantizerMode) -> None:
    quantizer, x = Quantizer("value", TOKEN_GRIDS[-1]), torch.randn(2, 3, 4)
    assert quantizer.calibrated
    quantizer.switch(mode)
    assert quantizer.mode is QuantizerMode.FROZEN
    assert not list(quantizer.parameters())
    assert torch.equal(quantizer(x), fake_quantize_dynamic(x, TOKEN_GRIDS[-1]))


def test_bfloat16_comes_back() -> None:
    x = torch.randn(2, 3, 8).bfloat16().requires_grad_()
    y = fake_quantize_dynamic(x, TOKEN_GRIDS[-1])
    assert y.dtype is torch.bfloat16
    y.sum().backward()
    assert x.grad is not None
    assert float(x.grad.float().sum()) == 48
