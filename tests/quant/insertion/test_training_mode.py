"""Quantizers during quantization-aware training: weights that are followed, delays, and moving averages."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qexp.config import MaxCalibrator, Qat, QuantizationConfig, Scheme, SqnrCalibrator, WeightScheme
from qexp.quant.calibration.estimators import weight_range
from qexp.quant.insertion.insert import QuantizedModel, insert
from qexp.quant.insertion.training_mode import delay_head, start_training
from qexp.quant.insertion.weights import originals
from qexp.quant.quantizer_mode import QuantizerMode
from tests.support.tiny_models import GEMM, batch, build

MAX = MaxCalibrator(kind="max")


def made(scheme: Scheme | None = None) -> QuantizedModel:
    """A calibrated tiny BERT."""
    model = build("bert")
    quantization = insert(model, QuantizationConfig(placement=GEMM, scheme=scheme or Scheme()))
    with torch.no_grad(), quantization.observing(batch()["attention_mask"]):
        model(**batch())
    quantization.calibrate(quantization.statistics(), MAX)
    return quantization


def step(quantization: QuantizedModel, rate: float = 0.5) -> None:
    """Take a step of gradient descent."""
    model: Any = quantization.model
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    model.train()
    model(**batch()).logits.square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "calibrator", [MAX, SqnrCalibrator(kind="sqnr", weights="sqnr")], ids=["max", "sqnr"]
)
def test_weight_ranges_follow_each_step_and_activations_stay(calibrator: Any) -> None:
    scheme = Scheme(weight=WeightScheme(narrow=False, range="full"))
    quantization = made(scheme)
    start_training(
        quantization, Qat(kind="qat", ranges="frozen", recalibrate_weights="each_step"), calibrator
    )
    before = {name: each.scale.clone() for name, each in quantization.quantizers.items()}
    for _ in range(2):
        step(quantization)
        weights = originals(quantization.model, quantization.sites, quantization.quantizers)
        for name, quantizer in quantization.quantizers.items():
            if name in weights:
                other = type(quantizer)(name, quantizer.grid, len(quantizer.scale))
                other.set_range(*weight_range(weights[name], calibrator, quantizer.grid))
                assert torch.equal(quantizer.scale, other.scale)
            else:
                assert torch.equal(quantizer.scale, before[name])
    moved = [
        name for name, each in quantization.quantizers.items() if not torch.equal(each.scale, before[name])
    ]
    assert len(moved) == sum(site.is_weight for site in quantization.sites)


def test_the_head_joins_after_its_delay() -> None:
    quantization = made()
    quantization.freeze()
    model: Any = quantization.model
    heads = {site.quantizer for site in quantization.sites if not site.module.startswith("bert.")}
    assert heads == {"classifier:linear.weight", "classifier:linear.input"}
    logits = []
    with torch.no_grad():
        for now in (0, 199, 200):
            delay_head(quantization, 200, now)
            assert {name for name, each in quantization.quantizers.items() if each.delayed} == (
                heads if now < 200 else set()
            )
            logits.append(model(**batch()).logits)
        quantization.freeze(set(quantization.quantizers) - heads)
        partly = model(**batch()).logits
    assert torch.equal(logits[0], partly) and torch.equal(logits[1], partly)
    assert not torch.equal(logits[2], partly)


def test_an_average_of_magnitudes_starts_at_the_first_batch() -> None:
    """As in NLP Architect 0.5.4: the threshold of the first batch, then 0.75 of it and 0.25 of the next."""
    quantization = made()
    method = Qat(
        kind="qat", ranges="ema", range_decay=0.75, range_statistic="magnitude", range_start="first_batch"
    )
    start_training(quantization, method, None)
    quantizer = quantization.quantizers["classifier:linear.input"]
    assert quantizer.mode is QuantizerMode.EMA
    quantizer.grid = type(quantizer.grid)(8, signed=True, symmetric=True)
    quantizer.train()
    expected = None
    for values in ([-3.0, 1.0], [-1.0, 2.0], [-0.5, 4.0]):
        quantizer.forget()
        quantizer(torch.tensor(values))
        now = max(abs(value) for value in values)
        expected = now if expected is None else 0.75 * expected + 0.25 * now
        assert float(quantizer.scale) == pytest.approx(expected / 127, rel=1e-6)
        assert quantizer.ends is not None
        assert quantizer.ends.tolist() == pytest.approx([-expected, expected])


def test_every_quantizer_has_the_gradient_of_the_method() -> None:
    quantization = made()
    start_training(quantization, Qat(kind="qat", ranges="frozen", gradient="all"), None)
    assert {each.gradient for each in quantization.quantizers.values()} == {"all"}
    start_training(quantization, Qat(kind="qat", range_parameters="ends", gradient="grid"), None)
    assert {each.gradient for each in quantization.quantizers.values()} == {"grid"}
    assert all(each.moved_ends is not None for each in quantization.quantizers.values())
    assert len(list(quantization.parameters())) == len(quantization.quantizers)
