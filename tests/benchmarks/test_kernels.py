"""Kernels of ``fake_quant``: all on the same grid, against the formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.kernels import KERNELS

FORMS = [
    pytest.param(
        name, form, id=f"{name}-{'channel' if form[0] else 'tensor'}-{'learned' if form[1] else 'frozen'}"
    )
    for name, kernel in KERNELS.items()
    for form in sorted(kernel.knows)
]


def oracle(x: Tensor, channels: bool) -> tuple[Tensor, Tensor]:
    """Fake-quantized values, and the step of each."""
    step = (x.abs().amax(1, keepdim=True) if channels else x.abs().amax()).double() / 127
    return torch.round(x.double() / step).clamp(-127, 127) * step, step.expand_as(x)


@pytest.mark.parametrize(("name", "form"), FORMS)
@pytest.mark.filterwarnings("default")
def test_a_kernel_rounds_to_the_grid_and_passes_gradients(name: str, form: tuple[bool, bool]) -> None:
    if name in ("modelopt", "brevitas"):
        pytest.importorskip(name)
    channels, learned = form
    x = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    kernel = KERNELS[name].make(x, channels, learned)
    y = kernel(x.detach().requires_grad_())
    expected, step = oracle(x, channels)
    if name == "brevitas":  # its scale is a percentile, not the largest value
        assert len(y.unique()) <= 256 and float((y.detach() - x).abs().mean()) < float(step.mean())
    else:
        apart = ((y.detach().double() - expected).abs() / step).flatten()
        assert float((apart > 1e-3).double().mean()) < 0.002  # a value between two steps may fall either way
        assert float(apart.max()) < 1.001
    leaf = x.detach().requires_grad_()
    kernel(leaf).backward(torch.ones_like(x))
    assert leaf.grad is not None
    assert float((leaf.grad == 1).float().mean()) > 0.9  # inside the range it passes as it is
