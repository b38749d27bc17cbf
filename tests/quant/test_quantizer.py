"""Phases, caching and ranges of a single quantizer."""

from __future__ import annotations

import pytest
import torch

from qexp.errors import QuantizationError
from qexp.quant.grid import SMALLEST_SCALE, Grid, fake_quantize
from qexp.quant.insertion.quantized_weight import QuantizedWeight
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode

GRID = Grid(8, signed=True, symmetric=True)


def ready(mode: QuantizerMode = QuantizerMode.FROZEN, grid: Grid = GRID) -> Quantizer:
    """A quantizer of [-1, 2]."""
    quantizer = Quantizer("value", grid)
    quantizer.set_range(torch.tensor(-1.0), torch.tensor(2.0))
    quantizer.switch(mode)
    return quantizer


def test_off_and_observing_return_the_very_tensor() -> None:
    x, observed = torch.randn(3), []
    quantizer = Quantizer("value", GRID)
    assert quantizer(x) is x
    quantizer.switch(QuantizerMode.OBSERVING, observed.append)
    assert quantizer(x) is x
    assert quantizer(x) is x
    assert len(observed) == 1


@pytest.mark.parametrize("mode", [QuantizerMode.FROZEN, QuantizerMode.LEARNED, QuantizerMode.EXPORT])
def test_a_phase_that_quantizes_needs_a_range(mode: QuantizerMode) -> None:
    with pytest.raises(QuantizationError, match="value has no range"):
        Quantizer("value", GRID).switch(mode)


@pytest.mark.parametrize("mode", [QuantizerMode.FROZEN, QuantizerMode.LEARNED])
@pytest.mark.parametrize(
    "grid", [GRID, Grid(8, signed=False, symmetric=False), Grid(4, signed=True, symmetric=True)]
)
def test_values_are_those_of_the_reference(mode: QuantizerMode, grid: Grid) -> None:
    quantizer, x = ready(mode, grid), torch.randn(100) * 2
    expected = fake_quantize(x, quantizer.scale, quantizer.zero_point, grid)
    assert torch.equal(quantizer(x), expected)
    quantizer.forget()
    with torch.no_grad():
        assert torch.equal(quantizer(x), expected)
    with torch.inference_mode():
        assert torch.equal(quantizer(x.clone()), expected)


def test_the_same_tensor_and_its_own_output_pass_without_work() -> None:
    quantizer, x = ready(), torch.randn(5)
    y = quantizer(x)
    assert quantizer(x) is y
    assert quantizer(y) is y
    assert quantizer(x.clone()) is not y
    quantizer.forget()
    assert quantizer._memo is None


def test_the_scale_is_a_parameter_in_the_learned_phase_only() -> None:
    quantizer = ready()
    assert list(quantizer.parameters()) == []
    before = quantizer.scale.clone()
    quantizer.switch(QuantizerMode.LEARNED)
    assert [name for name, _ in quantizer.named_parameters()] == ["log_scale"]
    assert torch.equal(quantizer.current_scale(), before)
    with torch.no_grad():
        quantizer.log_scale.add_(0.5)  # type: ignore[union-attr]
    quantizer.switch(QuantizerMode.FROZEN)
    assert list(quantizer.parameters()) == []
    torch.testing.assert_close(quantizer.scale, before * torch.tensor(0.5).exp())


@pytest.mark.parametrize("step", [-1e4, 1e4])
def test_no_step_makes_a_scale_vanish_or_explode(step: float) -> None:
    quantizer = ready(QuantizerMode.LEARNED)
    with torch.no_grad():
        quantizer.log_scale.add_(step)  # type: ignore[union-attr]
    assert SMALLEST_SCALE <= quantizer.current_scale().item() < float("inf")
    quantizer.switch(QuantizerMode.FROZEN)
    assert SMALLEST_SCALE <= float(quantizer.scale) < float("inf")


def test_the_gradient_of_the_log_scale_is_lsq_times_the_scale() -> None:
    quantizer = ready(QuantizerMode.LEARNED)
    x = torch.tensor([5.0, 0.01, -3.0])
    quantizer(x).sum().backward()
    scale = float(quantizer.scale)
    inside = round(0.01 / scale) - 0.01 / scale
    expected = scale * (127 + inside - 128) / (3 * 127) ** 0.5
    assert quantizer.log_scale is not None
    assert quantizer.log_scale.grad is not None
    assert float(quantizer.log_scale.grad) == pytest.approx(expected, rel=1e-4)


def test_loaded_state_replaces_what_was_computed_from_the_old() -> None:
    quantizer, other, x = ready(), Quantizer("other", GRID), torch.linspace(-1, 1, 50, requires_grad=True)
    quantizer(x)
    other.set_range(torch.tensor(-0.1), torch.tensor(0.1))
    quantizer.load_state_dict(other.state_dict())
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, (x.detach().abs() <= 0.1).float())


@pytest.mark.parametrize(("scale", "zero"), [(0.0, 0), (-1.0, 0), (float("nan"), 0), (1.0, 3), (1.0, 400)])
def test_ranges_that_mean_nothing_are_refused(scale: float, zero: int) -> None:
    with pytest.raises(QuantizationError, match="do not fit"):
        Quantizer("value", GRID).set_scale(torch.tensor(scale), torch.tensor(zero, dtype=torch.int32))


def test_a_weight_is_quantized_once_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    once = Quantizer._fake_quantize

    def counted(quantizer: Quantizer, x: torch.Tensor, done: torch.Tensor | None = None) -> torch.Tensor:
        computed.append(done is None)
        return once(quantizer, x, done)

    monkeypatch.setattr(Quantizer, "_fake_quantize", counted)
    quantizer, weight = ready(), torch.nn.Parameter(torch.randn(4, 4))
    stored = QuantizedWeight(quantizer)
    assert list(stored.state_dict()) == []

    def times(action: str) -> int:
        computed.clear()
        with torch.set_grad_enabled(action == "training"):
            results = [stored(weight) for _ in range(3)]
        assert all(torch.equal(result, once(quantizer, weight)) for result in results)
        return sum(computed)

    assert [times("evaluation"), times("evaluation")] == [1, 0]
    assert [times("training"), times("training")] == [1, 0]
    with torch.no_grad():
        weight.add_(0.5)
    assert [times("training"), times("evaluation")] == [1, 1]
    quantizer.set_range(torch.tensor(-0.5), torch.tensor(0.5))
    assert times("evaluation") == 1
    quantizer.switch(QuantizerMode.LEARNED)
    with torch.no_grad():
        quantizer.log_scale.add_(0.1)  # type: ignore[union-attr]
    assert times("training") == 1
    quantizer.switch(QuantizerMode.OFF)
    assert stored(weight) is weight


def test_uses_of_a_kept_weight_add_up_their_gradients() -> None:
    quantizer, weight = ready(QuantizerMode.LEARNED), torch.nn.Parameter(torch.randn(4, 4) * 2)
    stored, factors = QuantizedWeight(quantizer), torch.randn(3, 4, 4)
    for factor in factors:
        (stored(weight) * factor).sum().backward()
    got = weight.grad, quantizer.log_scale.grad  # type: ignore[union-attr]
    weight.grad, quantizer.log_scale.grad = None, None  # type: ignore[union-attr]
    (quantizer(weight) * factors.sum(0)).sum().backward()
    torch.testing.assert_close(got, (weight.grad, quantizer.log_scale.grad))  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_types_are_computed_in_float32_and_given_back(dtype: torch.dtype) -> None:
    quantizer = ready(QuantizerMode.LEARNED)
    x = torch.randn(64).to(dtype).requires_grad_()
    y = quantizer(x)
    assert y.dtype is dtype
    assert torch.equal(y, quantizer.forward(x.detach().float()).to(dtype))
    y.sum().backward()
    assert x.grad is not None and x.grad.dtype is dtype
    assert quantizer.scale.dtype is quantizer.log_scale.dtype is torch.float32  # type: ignore[union-attr]


def test_the_gradient_scale_of_a_part_is_that_of_its_batch() -> None:
    """LSQ's factor counts the elements of the whole batch: two halves add up to its gradient."""
    x = torch.linspace(-4, 4, 64)

    def gradient(parts: int) -> float:
        quantizer = Quantizer("site", Grid(8, signed=True, symmetric=True))
        quantizer.set_scale(torch.tensor(0.02), torch.tensor(0, dtype=torch.int32))
        quantizer.parts = parts
        quantizer.switch(QuantizerMode.LEARNED)
        for part in x.chunk(parts):
            quantizer(part).square().sum().backward()
        assert quantizer.log_scale is not None
        assert quantizer.log_scale.grad is not None
        return float(quantizer.log_scale.grad)

    assert gradient(4) == pytest.approx(gradient(1), rel=1e-5)
