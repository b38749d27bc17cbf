"""Triton kernels compared with plain torch, on a GPU if available, else in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qexp.quant.bounds import Bounds
from qexp.quant.grid import Grid
from qexp.quant.kernels import reference

pytest.importorskip("triton", reason="Triton is not installed; it comes with CUDA builds of torch")

from qexp.quant.kernels import cuda

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def heads(x: Tensor) -> Tensor:
    return x.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "one scale": ((3, 700), (), lambda x: x),
    "heads": ((2, 3, 50, 8), (), heads),
    "rows": ((40, 70), (40, 1), lambda x: x),
    "middle axis": ((4, 6, 50), (1, 6, 1), lambda x: x),
    "columns": ((30, 40), (1, 40), lambda x: x),
    "groups": ((6, 5, 64), (6, 5, 1), lambda x: x),
    "scales apart": ((3, 4, 5), (3, 1, 5), lambda x: x),
    "five axes": ((2, 2, 2, 3, 3), (), lambda x: x),
    "gaps": ((4, 30), (), lambda x: torch.cat([x, x], -1)[:, :30]),
}


def case(name: str, *, numbers: bool, nans: bool = False) -> tuple[Tensor, Tensor, Tensor, Bounds]:
    shape, of_scale, lay = CASES[name]
    torch.manual_seed(0)
    values = torch.randn(shape) * 2
    if nans:
        values.masked_fill_(torch.rand(shape) < 0.1, float("nan"))
    scale = (torch.rand(of_scale) * 0.02 + 0.005).to(DEVICE)
    ends = (-torch.randint(20, 128, of_scale).float(), torch.randint(20, 128, of_scale).float())
    bounds = Bounds(-128.0, 100.0) if numbers else Bounds(*(end.to(DEVICE) for end in ends))
    return lay(values.to(DEVICE)), lay(torch.randn(shape).to(DEVICE)), scale, bounds


def scale_gradient(grad: Tensor, x: Tensor, scale: Tensor, bounds: Bounds) -> Tensor:
    """LSQ's equation 3, in float64 but for ``x / scale``, which decides what rounds where."""
    v = (x / scale).double()
    derivative = torch.where((v >= bounds.lower) & (v <= bounds.upper), v.round() - v, v)
    derivative = torch.clamp(derivative, torch.as_tensor(bounds.lower), torch.as_tensor(bounds.upper))
    return (grad.double() * derivative).sum_to_size(scale.shape)


@pytest.mark.parametrize("numbers", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_forward_is_the_same_bits(name: str, numbers: bool) -> None:
    x, _, scale, bounds = case(name, numbers=numbers, nans=True)
    for nan_low in (False, True):
        own = cuda.forward(x, scale, bounds, nan_low=nan_low)
        expected = reference.forward(x, scale, bounds, nan_low=nan_low)
        assert own.is_contiguous()
        assert torch.equal(own.nan_to_num(1e9), expected.nan_to_num(1e9))


def test_ties_go_to_even_up_to_16_bits() -> None:
    grid = Grid(16, signed=False, symmetric=False)
    x = torch.cat([torch.arange(-3, 65540) + 0.5, torch.tensor([-1e30, 1e30])]).to(DEVICE)
    bounds, one = Bounds(float(grid.qmin), float(grid.qmax)), torch.tensor(1.0, device=DEVICE)
    assert torch.equal(cuda.forward(x, one, bounds), x.round().clamp(grid.qmin, grid.qmax))


@pytest.mark.parametrize("numbers", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, numbers: bool) -> None:
    x, grad, scale, bounds = case(name, numbers=numbers)
    expected = reference.backward(grad, x, scale, bounds)
    for incoming in (grad, grad.contiguous()):
        assert torch.equal(cuda.backward(incoming, x, scale, bounds), expected)
        passed, total = cuda.backward_learned(incoming, x, scale, bounds)
        exact = scale_gradient(grad, x, scale, bounds)
        assert torch.equal(passed, expected)
        assert total.shape == scale.shape
        magnitude = float((grad.abs() * 128).sum())
        torch.testing.assert_close(total.double(), exact, rtol=1e-5, atol=1e-7 * magnitude)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_floats_are_computed_in_float32(dtype: torch.dtype) -> None:
    # Triton's interpreter cuts bits off where it turns float32 into bfloat16; a GPU rounds to the nearest.
    ulp = 2**-7 if dtype is torch.bfloat16 and DEVICE == "cpu" else 0.0
    x, grad, scale, bounds = case("one scale", numbers=True)
    x, grad = x.to(dtype), grad.to(dtype)
    y = cuda.forward(x, scale, bounds)
    wide = reference.forward(x.float(), scale, bounds)
    torch.testing.assert_close(y, wide.to(dtype), rtol=ulp, atol=0.0)
    passed, total = cuda.backward_learned(grad, x, scale, bounds)
    expected, sums = reference.backward_learned(grad.float(), x.float(), scale, bounds)
    assert torch.equal(passed, expected.to(dtype))
    torch.testing.assert_close(total, sums, rtol=1e-4, atol=1e-2)
