"""qexp's ``recipe=q8bert`` beside NLP Architect 0.5.4."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch

from qexp.config import EmaCalibrator, Experiment
from qexp.quant.calibration.estimators import activation_range
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.grid import Grid, activation_grid, quantize, scale_and_zero_point, weight_grid
from qexp.quant.insertion.quantized_model import QuantizedModel
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode
from tests.conformance import inputs
from tests.conformance.inputs import Array
from tests.conformance.ours.encoders import (
    calibrated,
    logits,
    site_quantizers,
    start_training,
    tensors,
    threshold,
)
from tests.conformance.table import Row, counts_row, logits_row, scales_row, values_row
from tests.conftest import experiment

NAME = "q8bert"
STEPS = (1, 5, 50)
BIASES = "docs/quantization.md: biases are never quantized"
QUERY = "bert.encoder.layer.0.attention.self.query.parametrizations.weight.original"


def recipe() -> Experiment:
    """Return the recipe on MRPC."""
    return experiment("task=mrpc", "recipe=q8bert")


def site_of(name: str) -> tuple[str, str]:
    """Return qexp's kind and module of a threshold of the package."""
    module, role = name.split(":")
    if role == "weight":
        return ("embedding.weight" if module.endswith("embeddings") else "linear.weight"), module
    if role == "input":
        return "linear.input", module
    parent, _, last = module.rpartition(".")
    return f"matmul.{last}", parent


def sites_row(golden: Mapping[str, Any]) -> Row:
    """Compare the lists of quantized values."""
    quantization = calibrated(recipe(), inputs.bert_batches(1))
    real, ours = {site_of(name) for name in golden["sites"]}, set(site_quantizers(quantization))
    missing, more = sorted({kind for kind, _ in real - ours}), sorted({kind for kind, _ in ours - real})
    text = f"{len(real - ours)} missing {missing}, {len(ours - real)} more {more}"
    return Row(NAME, "sites", str(len(real)), str(len(ours)), text, real == ours)


def grids(bits: int) -> tuple[Grid, Grid]:
    """Return the recipe's grids of weights and of activations."""
    scheme = recipe().scheme
    pair = weight_grid(bits, scheme.weight), activation_grid(bits, scheme.activation)
    assert pair[0] is not None and pair[1] is not None
    return pair[0], pair[1]


def steps(grid: Grid) -> Array:
    """Return the integers of the fixed values at scale 0.25."""
    zero = torch.tensor(0, dtype=torch.int32)
    result: Array = quantize(
        torch.from_numpy(inputs.points(0.25, grid.bits)), torch.tensor(0.25), zero, grid
    ).numpy()
    return result


def scales(grid: Grid, bits: int) -> dict[str, float]:
    """Return the scale of each tensor."""
    found = {}
    for name, values in inputs.tensors().items():
        ends = torch.tensor([values.min(), values.max()])
        found[f"{name} {bits}"] = float(scale_and_zero_point(ends[0], ends[1], grid)[0])
    return found


def passes(grid: Grid, method: Any) -> Array:
    """Return which of the fixed values pass their gradient."""
    quantizer = Quantizer("value", grid)
    quantizer.set_scale(torch.tensor(0.25), torch.tensor(0, dtype=torch.int32))
    quantizer.gradient = getattr(method, "gradient", "range")
    quantizer.switch(QuantizerMode.FROZEN)
    quantizer.renew_bounds()
    values = torch.from_numpy(inputs.points(0.25, grid.bits)).requires_grad_()
    quantizer(values).sum().backward()
    assert values.grad is not None
    return (values.grad != 0).int().numpy()


def moving_thresholds(grid: Grid, method: Any) -> list[float]:
    """Return the threshold after each of the moving batches, in training."""
    quantizer, batches = Quantizer("value", grid), inputs.moving_batches(50)
    first = torch.from_numpy(batches[0])
    quantizer.set_range(first.amin(), first.amax())
    quantizer.decay = method.range_decay
    quantizer.averages_magnitude = getattr(method, "range_statistic", "ends") == "magnitude"
    quantizer.restarts = getattr(method, "range_start", "calibrated") == "first_batch"
    quantizer.switch(QuantizerMode.EMA)
    quantizer.train()
    found = []
    for batch in batches:
        quantizer(torch.from_numpy(batch))
        found.append(float(threshold(quantizer)))
    return found


def calibrated_threshold(count: int, calibrator: EmaCalibrator, grid: Grid) -> float:
    """Return the threshold that a calibrator finds over the first moving batches."""
    statistics = CalibrationStatistics()
    for batch in inputs.moving_batches(50)[:count]:
        statistics.add("value", torch.from_numpy(batch))
    scale, _ = scale_and_zero_point(*activation_range(statistics["value"], calibrator, grid), grid)
    return float(scale.double() * grid.qmax)


def value_rows(golden: Mapping[str, Any]) -> Iterator[Row]:
    """Compare scales, integers, gradients and moving averages of single quantizers."""
    for bits in (4, 8):
        weights, activations = grids(bits)
        for what, grid in (("weight", weights), ("activation", activations)):
            real = golden["values"][str(bits)]
            yield counts_row(NAME, f"integers of the {what} grid, {bits} bits", real["steps"], steps(grid))
            found = passes(grid, recipe().method)
            yield counts_row(
                NAME, f"values whose gradient passes, {what}, {bits} bits", real["passes"], found
            )
    keys = [key for key in golden["scales"] if not key.startswith("zeros")]
    ours = scales(grids(4)[0], 4) | scales(grids(8)[0], 8)
    real_scales = [golden["scales"][key] for key in keys]
    yield scales_row(NAME, "scales", real_scales, [ours[key] for key in keys])
    found = moving_thresholds(grids(8)[1], recipe().method)
    yield scales_row(NAME, "thresholds over 50 moving batches", golden["moving"], found)


def started(chosen: Experiment, batch: dict[str, Array], *, head_delay: bool) -> QuantizedModel:
    """Return the random BERT calibrated on a batch, in training mode."""
    quantization = calibrated(chosen, [batch])
    start_training(quantization, chosen)
    delay = getattr(chosen.method, "head_delay", 0)
    if delay and head_delay:
        import_module("qexp.quant.insertion.training_mode").delay_head(quantization, delay, 0)
    quantization.model.train()
    return quantization


def output_of(quantization: QuantizedModel, chosen: Experiment, batch: dict[str, Array]) -> Any:
    """Return the output of a batch in training, with padding as the recipe has it."""
    each = tensors(batch)
    masked = getattr(chosen.calibration, "padding", "masked") == "masked"
    with quantization.padding(each["attention_mask"] if masked else None):
        return quantization.model(**each)


def first_steps(chosen: Experiment) -> Array:
    """Return the logits of each of the first batches as if it were the first of a training."""
    found = []
    for batch in inputs.bert_batches(inputs.FIRST_STEPS, 1):
        quantization = started(chosen, batch, head_delay=True)
        with torch.no_grad():
            found.append(output_of(quantization, chosen, batch).logits.numpy())
    return np.array(found)


def trained(chosen: Experiment, *, head_delay: bool) -> tuple[QuantizedModel, dict[Any, Array], Array]:
    """Train without moving the weights; return the model, thresholds and a gradient.

    Thresholds are by number of batches and site.
    """
    batches = inputs.bert_batches(inputs.TRAINING_START + max(STEPS))[inputs.TRAINING_START :]
    quantization = started(chosen, batches[0], head_delay=head_delay)
    found: dict[Any, Array] = {}
    for index, batch in enumerate(batches):
        output = output_of(quantization, chosen, batch)
        quantization.model.zero_grad()
        output.loss.backward()
        if index == 0:
            gradient = dict(quantization.model.named_parameters())[QUERY].grad
            assert gradient is not None
            first = gradient.numpy().copy()
        if index + 1 in STEPS:
            for site, quantizer in site_quantizers(quantization).items():
                found[(index + 1, *site)] = threshold(quantizer)
    return quantization, found, first


def training_rows(arrays: Mapping[str, Array]) -> Iterator[Row]:
    """Compare first steps, and 50 training batches on fixed weights."""
    chosen = recipe()
    first = (arrays["first logits"], first_steps(chosen))
    yield logits_row(
        NAME, "logits of first steps, by batch", *(each.reshape(len(each), -1) for each in first)
    )
    quantization, found, gradient = trained(chosen, head_delay=True)
    yield values_row(
        NAME, "gradient of a query weight, first step", arrays["gradient"], gradient, tolerance=1e-4
    )
    for count in STEPS:
        real, ours = [], []
        for key, value in arrays.items():
            number, _, name = key.partition("|")
            if number != str(count) or name.endswith(":weight") or float(value) == 0:
                continue  # zero: of the classifier, which is not quantized yet
            if (count, *site_of(name)) in found:
                real.append(float(value))
                ours.append(float(found[(count, *site_of(name))]))
        what = f"thresholds of BERT after {count} batch{'es' * (count > 1)}"
        yield scales_row(NAME, what, np.array(real), np.array(ours))
    evaluated = inputs.bert_batches(1, 64)[0]
    quantization, _, _ = trained(chosen, head_delay=False)
    result = logits(quantization.eval().model.eval(), evaluated)
    float_biases = logits_row(
        NAME, "logits in evaluation, float biases", arrays["evaluated with float biases"], result
    )
    variant = BIASES * float_biases.equal
    yield logits_row(NAME, "logits in evaluation", arrays["evaluated"], result, variant)
    yield float_biases


def rows(golden: Mapping[str, Any], arrays: Mapping[str, Array]) -> Iterator[Row]:
    """Return all comparisons with NLP Architect."""
    yield sites_row(golden)
    yield from value_rows(golden)
    yield from training_rows(arrays)
