"""Operations, bytes and elements, against torch's own counter and against the models themselves."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import floors
from benchmarks.floors import FLOAT, Rates, floor
from benchmarks.peers.own import PLACEMENTS
from benchmarks.shapes import SHAPES, Family, Shape, batch_of
from qexp.config import QuantizationConfig
from qexp.quant.insertion.insert import insert

OTHER = Shape(width=48, layers=3, heads=3, inner=80, vocabulary=60, positions=40)
shapes = pytest.mark.parametrize("shape", [SHAPES["tiny"], OTHER], ids=["tiny", "other"])


@shapes
def test_operations_are_those_that_torch_counts(shape: Shape) -> None:
    batch = batch_of(shape, 3, 12)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        Family(shape).build("eager")(**batch)
    assert floors.forward_operations(shape, 3, 12) == counter.get_total_flops()


@shapes
def test_parameters_are_those_of_the_model(shape: Shape) -> None:
    model = Family(shape).build()
    assert floors.parameters(shape) == sum(parameter.numel() for parameter in model.parameters())


@shapes
@pytest.mark.parametrize("sites", ["linear", "qdqbert"])
def test_elements_are_those_that_the_quantizers_see(shape: Shape, sites: str) -> None:
    model, batch = Family(shape).build(), batch_of(shape, 3, 12)
    quantization = insert(model, QuantizationConfig(placement=PLACEMENTS[sites]))
    with torch.no_grad(), quantization.observing(batch["attention_mask"]):
        model(**batch)
    seen = sum(int(value.histogram.counts.sum()) for value in quantization.statistics().values())
    stored = sum(
        model.get_submodule(site.module).weight.numel()
        for site in quantization.sites
        if site.kind == "linear.weight"
    )
    assert floors.quantized_elements(shape, 3, 12, sites) == (stored, seen)


def test_best_is_the_least_of_at_least_five(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.0, 8.0, 10.0, 12.5, 20.0, 21.5, 30.0, 31.25, 40.0, 49.0, 50.0])

    class Clock:
        perf_counter = staticmethod(lambda: next(ticks))

    monkeypatch.setattr(floors, "time", Clock)
    calls: list[int] = []
    # Ticks: the end of the budget is set at 0; five tries follow, and a look at the clock ends the loop.
    assert floors.best(lambda: calls.append(1), budget=0.5) == 1.25
    assert len(calls) == 6


def test_rates_agree_with_a_plain_measurement() -> None:
    """The rate of a copy is not below what a plain copy, timed here, reaches at its best by much."""
    source, target = torch.ones(1 << 18), torch.empty(1 << 18)
    plain = []
    for _ in range(30):
        started = time.perf_counter()
        target.copy_(source)
        plain.append(time.perf_counter() - started)
    assert floors.copy_rate(FLOAT << 18) > 0.05 * (2 * FLOAT << 18) / min(plain)


def test_all_rates_are_sane() -> None:
    found = floors.rates(SHAPES["tiny"], 4, 16)
    assert found.threads == 1
    assert 1e8 < found.copied < 1e13
    assert 1e8 < found.copied_in_cache < 1e13
    assert 1e8 < found.product < 1e14
    assert 1e-12 < found.arithmetic < 1e-6


@pytest.mark.parametrize("sites", ["linear", "qdqbert"])
def test_a_floor_adds_up(sites: str) -> None:
    shape = SHAPES["tiny"]
    found = Rates(copied=1e9, copied_in_cache=1e10, product=1e10, arithmetic=1e-9, threads=1)
    least: Any = floor(shape, 4, 16, sites, found)
    weights, activations = floors.quantized_elements(shape, 4, 16, sites)
    assert least.forward == pytest.approx(floors.forward_operations(shape, 4, 16) / 1e10)
    assert least.step == pytest.approx(3 * least.forward + 28 * floors.parameters(shape) / 1e9)
    assert least.quantization_forward == pytest.approx(8 * activations / 1e9)
    assert least.quantization_step == pytest.approx(20 * (weights + activations) / 1e9)
