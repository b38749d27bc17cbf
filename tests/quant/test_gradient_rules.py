"""Which values pass their gradient, and the learned ends of a range."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qexp.config import GradientRule, MaxCalibrator
from qexp.quant.bounds import Bounds
from qexp.quant.calibration.estimators import weight_range
from qexp.quant.fake_quantize import FakeQuantizeFrozen, FakeQuantizeLearned
from qexp.quant.grid import Grid, range_of_qparams
from qexp.quant.kernels import cpu, reference
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode

NARROW = {bits: Grid(bits, signed=True, symmetric=True, narrow=True, axis=0) for bits in (2, 3, 4, 6, 8)}
FULL = {bits: Grid(bits, signed=True, symmetric=True, full=True) for bits in (4, 8)}
ASYMMETRIC = Grid(8, signed=False, symmetric=False)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(NARROW)), st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_the_value_that_set_a_range_passes_its_gradient(bits: int, seed: int, size: float) -> None:
    """Its quotient by the scale, both rounded to float32, may come out beyond the highest integer."""
    grid = NARROW[bits]
    weight = (torch.randn(64, 40, generator=torch.Generator().manual_seed(seed)) * size).requires_grad_()
    quantizer = Quantizer("weight", grid, channels=64)
    quantizer.set_range(*weight_range(weight, MaxCalibrator(kind="max"), grid))
    quantizer.switch(QuantizerMode.FROZEN)
    quantizer(weight).sum().backward()
    assert weight.grad is not None
    assert bool((weight.grad == 1).all())


@pytest.mark.parametrize("rule", ["range", "grid", "all"])
@pytest.mark.parametrize("grid", [*FULL.values(), ASYMMETRIC], ids=str)
@pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])
def test_each_rule_lets_its_values_pass(rule: GradientRule, grid: Grid, kernels: object) -> None:
    zero = 0 if grid.symmetric else 100
    lower, upper = float(grid.qmin - zero), float(grid.qmax - zero)
    bounds = Bounds(lower, upper, rule)
    places = torch.arange(lower - 2, upper + 2, 1 / 16)  # in steps, ties included
    steps = places.round()
    passes = {
        "range": (places >= lower) & (places <= upper),
        "grid": (steps >= lower) & (steps <= upper),
        "all": torch.ones_like(places, dtype=torch.bool),
    }[rule]
    got = kernels.backward(torch.ones_like(places), places, torch.tensor(1.0), bounds.passing)  # type: ignore[attr-defined]
    assert torch.equal(got != 0, passes)
    around = Bounds.around(grid, torch.tensor([zero]), rule).passing
    assert torch.equal(
        reference.backward(torch.ones_like(places), places, torch.ones(1), around) != 0, passes
    )
    if rule != "all":
        expected = torch.where(passes, steps - places, steps.clamp(lower, upper)).sum()
        one = torch.tensor(1.0)
        _, scale = kernels.backward_learned(torch.ones_like(places), places, one, bounds.passing)  # type: ignore[attr-defined]
        assert float(scale) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("rule", ["range", "grid"])
def test_a_compiled_graph_passes_the_same(rule: GradientRule) -> None:
    bounds, factor = Bounds(-8.0, 7.0, rule), 0.25
    values, grad = torch.linspace(-10, 10, 400), torch.randn(400)
    results = []
    for traced in (False, True):
        x, scale = values.clone().requires_grad_(), torch.tensor(0.9, requires_grad=True)
        if traced:
            y = reference.traced(x, scale, bounds, factor)
        else:
            y = FakeQuantizeLearned.apply(x, scale, bounds, factor)
        y.backward(grad)
        results.append((y.detach(), x.grad, scale.grad))
    torch.testing.assert_close(*results)


def learned(x: Tensor, low: Tensor, high: Tensor, grid: Grid) -> Tensor:
    """Range learning of AIMET 2 in autograd's own words: scale and offset of a minimum and a maximum."""
    scale = (high - low) / (grid.qmax - grid.qmin)
    offset = torch.zeros(())
    if not grid.symmetric:
        offset = low / scale
        offset = offset + (offset.round() - offset).detach()
    first = (grid.qmin if grid.symmetric else 0) + offset
    last = first + grid.qmax - grid.qmin
    v = x / scale
    steps = v + (v.round() - v).detach()
    inside = (steps >= first) & (steps <= last)
    return torch.where(inside, steps, torch.maximum(torch.minimum(steps.detach(), last), first)) * scale


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([*FULL.values(), ASYMMETRIC]), st.integers(0, 2**31), st.floats(0.5, 1.5))
def test_learned_ends_have_the_gradients_of_range_learning(grid: Grid, seed: int, share: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    values, grad = torch.randn(3, 70, generator=draw), torch.randn(3, 70, generator=draw)
    quantizer = Quantizer("value", grid)
    quantizer.set_range(values.amin() * share, values.amax() * share)
    quantizer.learns_ends, quantizer.gradient = True, "grid"
    quantizer.switch(QuantizerMode.LEARNED)
    x = values.clone().requires_grad_()
    quantizer(x).backward(grad)
    assert quantizer.moved_ends is not None and quantizer.moved_ends.grad is not None
    low, high = range_of_qparams(quantizer.scale, quantizer.zero_point, grid)
    low, high = low.requires_grad_(), high.requires_grad_()
    other = values.double().requires_grad_()
    learned(other, low, high, grid).backward(grad.double())
    assert other.grad is not None and low.grad is not None and high.grad is not None
    torch.testing.assert_close(x.grad, other.grad, check_dtype=False)
    expected = torch.stack([low.grad, high.grad])
    torch.testing.assert_close(quantizer.moved_ends.grad, expected, check_dtype=False, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("grid", [FULL[8], ASYMMETRIC], ids=str)
def test_learned_ends_become_scale_and_zero_point(grid: Grid) -> None:
    quantizer = Quantizer("value", grid)
    quantizer.set_range(torch.tensor(-1.0), torch.tensor(2.0))
    before = quantizer.scale.clone(), quantizer.zero_point.clone()
    quantizer.learns_ends = True
    quantizer.switch(QuantizerMode.LEARNED)
    assert torch.equal(quantizer.current_scale(), before[0])
    assert torch.equal(quantizer.current_zero_point(), before[1])
    with torch.no_grad():
        quantizer.moved_ends.copy_(torch.tensor([-0.5, 0.25]))  # type: ignore[union-attr]
    quantizer.switch(QuantizerMode.FROZEN)
    low, high = range_of_qparams(quantizer.scale, quantizer.zero_point, grid)
    width = 3.0 if not grid.symmetric else 2.0 * 255 / 127
    assert float(high - low) == pytest.approx(width + 0.75, rel=1e-3)
    if not grid.symmetric:
        assert float(low) == pytest.approx(-1.5, abs=float(quantizer.scale))


def test_a_frozen_range_passes_all_where_asked() -> None:
    x = torch.tensor([-100.0, 0.3, 100.0], requires_grad=True)
    bounds = Bounds(-128.0, 127.0, "all")
    y = FakeQuantizeFrozen.apply(x, torch.tensor(0.1), bounds)
    y.sum().backward()
    assert torch.equal(y.detach(), torch.tensor([-12.8, 0.3, 12.7]).div(0.1).round() * torch.tensor(0.1))
    assert x.grad is not None and x.grad.tolist() == [1.0, 1.0, 1.0]
