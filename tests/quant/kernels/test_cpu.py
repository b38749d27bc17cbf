"""C kernels compared with plain torch: every layout, every granularity, any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qexp.quant import fake_quantize
from qexp.quant.bounds import Bounds
from qexp.quant.kernels import cpu, reference

pytestmark = pytest.mark.skipif(
    not cpu.available(), reason="no C compiler here: there are no native kernels to test"
)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def heads(x: Tensor) -> Tensor:
    """[B, T, h, d] in memory, seen as [B, h, T, d]."""
    return x.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)


LAYOUTS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "flat": ((5, 7, 11), lambda x: x),
    "large": ((3, 64, 401), lambda x: x),
    "scalar": ((), lambda x: x),
    "heads": ((2, 3, 50, 8), heads),
    "columns first": ((6, 9), lambda x: x.t().contiguous().t()),
    "slice": ((4, 5, 6), lambda x: torch.cat([x, x], -1)[..., :6]),
    "expanded": ((4, 5, 6), lambda x: x[:1].expand(4, 5, 6)),
}
SCALES: dict[str, Callable[[tuple[int, ...]], tuple[int, ...]]] = {
    "tensor": lambda shape: (),
    "first axis": lambda shape: (*shape[:1], *(1,) * (len(shape) - 1)),
    "last axis": lambda shape: (*(1,) * (len(shape) - 1), *shape[-1:]),
    "groups": lambda shape: (*shape[:-1], 1) if shape else (),
    "apart": lambda shape: (*shape[:1], *(1,) * (len(shape) - 2), *shape[-1:]) if len(shape) > 2 else (),
}


def case(
    layout: str, scales: str, seed: int, *, numbers: bool, nans: bool = False
) -> tuple[Tensor, Tensor, Tensor, Bounds]:
    """x, a gradient of another layout, scales and bounds; a good part of x lies outside."""
    torch.manual_seed(seed)
    shape, lay = LAYOUTS[layout]
    values = torch.randn(shape) * 2
    if nans:
        values.masked_fill_(torch.rand(shape) < 0.1, float("nan"))
    x, of_scale = lay(values), SCALES[scales](shape)
    scale = torch.rand(of_scale) * 0.02 + 0.005
    lower = -128.0 if numbers else -torch.randint(20, 128, of_scale).float()
    upper = 100.0 if numbers else torch.randint(20, 128, of_scale).float()
    return x, lay(torch.randn(shape)), scale, Bounds(lower, upper)


def scale_gradient(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
    """LSQ's equation 3, in float64 but for ``x / scale``, which decides what rounds where."""
    v = (x / scale).double()
    derivative = torch.where((v >= bounds.lower) & (v <= bounds.upper), v.round() - v, v)
    derivative = torch.clamp(derivative, torch.as_tensor(bounds.lower), torch.as_tensor(bounds.upper))
    return (grad.double() * derivative).sum_to_size(scale.shape)


CASES = st.tuples(st.sampled_from(list(LAYOUTS)), st.sampled_from(list(SCALES)), st.integers(0, 99))


@settings(deadline=None, max_examples=150)
@given(drawn=CASES, numbers=st.booleans(), nan_low=st.booleans(), threads=st.integers(1, 3))
def test_forward_is_the_same_bits(
    drawn: tuple[str, str, int], numbers: bool, nan_low: bool, threads: int
) -> None:
    torch.set_num_threads(threads)
    x, _, scale, bounds = case(*drawn, numbers=numbers, nans=True)
    if not cpu.fits(x, scale):
        assert drawn[1] == "apart"
        return
    own = cpu.forward(x, scale, bounds, nan_low=nan_low)
    expected = reference.forward(x, scale, bounds, nan_low=nan_low)
    assert own.is_contiguous() and expected.is_contiguous()
    assert torch.equal(own.nan_to_num(1e9), expected.nan_to_num(1e9))


@settings(deadline=None, max_examples=150)
@given(drawn=CASES, numbers=st.booleans(), threads=st.integers(1, 3))
def test_what_is_inside_is_where_the_gradient_passes(
    drawn: tuple[str, str, int], numbers: bool, threads: int
) -> None:
    torch.set_num_threads(threads)
    x, _, scale, bounds = case(*drawn, numbers=numbers)
    if not cpu.fits(x, scale):
        return
    y, inside = cpu.forward_inside(x, scale, bounds)
    assert torch.equal(y, cpu.forward(x, scale, bounds))
    passed = reference.backward(torch.ones_like(x), x, scale, bounds.passing)
    assert torch.equal(inside, passed == 1)


@settings(deadline=None, max_examples=150)
@given(drawn=CASES, numbers=st.booleans(), threads=st.integers(1, 3), turned=st.booleans())
def test_gradients_are_the_same(
    drawn: tuple[str, str, int], numbers: bool, threads: int, turned: bool
) -> None:
    torch.set_num_threads(threads)
    x, grad, scale, bounds = case(*drawn, numbers=numbers)
    grad = grad.contiguous() if turned else grad
    if not cpu.fits(x, scale):
        return
    passed = cpu.backward(grad, x, scale, bounds)
    expected = reference.backward(grad, x, scale, bounds)
    assert torch.equal(passed, expected)
    again, total = cpu.backward_learned(grad, x, scale, bounds)
    assert torch.equal(again, expected)
    exact = scale_gradient(grad, x, scale, bounds)
    assert total.shape == scale.shape
    magnitude = float((grad.abs() * 128).sum())
    torch.testing.assert_close(total.double(), exact, rtol=1e-5, atol=1e-7 * magnitude)


def test_the_sum_of_a_scales_gradient_does_not_depend_on_the_threads() -> None:
    x, grad, scale, bounds = case("large", "tensor", 1, numbers=True)
    totals = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        totals.append(cpu.backward_learned(grad, x, scale, bounds)[1])
    assert totals[0] == totals[1] == totals[2]


def test_no_zero_carries_a_sign() -> None:
    y = cpu.forward(torch.tensor([-0.001, 0.0]), torch.tensor(0.1), Bounds(-128.0, 127.0))
    assert not torch.signbit(y).any()


@pytest.mark.parametrize("x", [torch.zeros(0), torch.zeros(3, dtype=torch.float64), torch.zeros(2).bool()])
def test_other_tensors_are_left_to_plain_torch(x: Tensor) -> None:
    assert fake_quantize.kernels_of(x, torch.tensor(0.1)) is reference


def test_the_choice_of_kernels() -> None:
    x, scale = torch.zeros(4), torch.tensor(0.1)
    assert fake_quantize.kernels_of(x, scale) is cpu
    fake_quantize.choose_kernels("plain")
    try:
        assert fake_quantize.kernels_of(x, scale) is reference
    finally:
        fake_quantize.choose_kernels("auto")
