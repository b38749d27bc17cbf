"""``torch.compile`` of a model with quantizers: a single graph, and the results of eager mode."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import utils as dynamo

from qexp.config import ActivationScheme, Scheme
from qexp.quant.bounds import Bounds
from qexp.quant.fake_quantize import FakeQuantizeLearned
from qexp.quant.grid import Grid
from qexp.quant.insertion.insert import QuantizedModel
from qexp.quant.kernels.reference import traced
from tests.support.tiny_models import batch, build, calibrated


def test_what_the_compiler_sees_is_what_eager_computes() -> None:
    torch.manual_seed(0)
    values, incoming, grid = torch.randn(4000), torch.randn(4000), Grid(6, signed=True, symmetric=False)
    results = []
    for way in (traced, FakeQuantizeLearned.apply):
        x, scale = values.clone().requires_grad_(), torch.tensor(0.0371, requires_grad=True)
        zero = torch.tensor(3.0, requires_grad=True)
        more = () if way is traced else (None, zero)
        y = way(x, scale, Bounds.around(grid, zero), 0.3, *more)
        y.backward(incoming)
        results.append((y.detach(), x.grad, scale.grad, zero.grad))
    (y, grad_x, grad_scale, grad_zero), (same_y, same_x, same_scale, same_zero) = results
    assert torch.equal(y, same_y)
    torch.testing.assert_close(grad_x, same_x, rtol=1e-6, atol=0)
    torch.testing.assert_close(grad_scale, same_scale, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(grad_zero, same_zero, rtol=1e-4, atol=1e-4)


def gradients(model: nn.Module, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss, and all gradients behind each other."""
    model.zero_grad()
    loss = model(**tensors, labels=torch.tensor([0, 1, 2])).loss
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: torch.compile needs one on a CPU")
@pytest.mark.parametrize(
    ("mode", "scheme"),
    [
        (QuantizedModel.freeze, None),
        (QuantizedModel.learn, None),
        (lambda each: each.learn(zero_points=True), None),
        (QuantizedModel.freeze, Scheme(activation=ActivationScheme(dynamic="token"))),
    ],
    ids=["frozen", "learned", "zero points", "per token"],
)
def test_a_model_compiles_to_one_graph(mode: Callable[[QuantizedModel], None], scheme: Scheme | None) -> None:
    model = build("bert").train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    mode(calibrated(model, scheme=scheme))
    loss, expected = gradients(model, batch())
    dynamo.counters.clear()
    model.compile(dynamic=True)
    compiled, got = gradients(model, batch())
    assert dynamo.counters["stats"]["unique_graphs"] == 1
    assert not dynamo.counters["graph_break"]
    torch.testing.assert_close(compiled, loss, rtol=1e-5, atol=1e-5)
    assert float((got - expected).norm() / expected.norm()) < 1e-3
