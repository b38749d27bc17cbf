"""qexp's ``recipe=qdqbert`` beside QDQBERT on pytorch-quantization 2.1.3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from qexp.config import (
    AnyCalibrator,
    Calibrator,
    EntropyCalibrator,
    Experiment,
    MaxCalibrator,
    MseCalibrator,
    PercentileCalibrator,
)
from qexp.errors import QuantizationError
from qexp.quant.calibration.estimators import activation_range, weight_range
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.grid import Grid, activation_grid, quantize, scale_and_zero_point, weight_grid
from qexp.quant.insertion.quantized_model import QuantizedModel
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode
from tests.conformance import inputs
from tests.conformance.inputs import Array
from tests.conformance.ours.encoders import calibrated, logits, site_quantizers, threshold
from tests.conformance.table import Row, counts_row, logits_row, scales_row
from tests.conftest import experiment

NAME = "qdqbert"
SEARCH = "qexp.quant.calibration.estimators: other candidates"

BIN = 5e-4
"""Width of a bin as a share of the first batch's range: the package's range may end where the last bin does,
beyond the largest value seen."""


def recipe(*words: str) -> Experiment:
    """Return the recipe on MRPC."""
    return experiment("task=mrpc", "recipe=qdqbert", *words)


def grids(bits: int) -> tuple[Grid, Grid]:
    """Return the recipe's grids of weights and of activations."""
    scheme = recipe().scheme
    pair = weight_grid(bits, scheme.weight), activation_grid(bits, scheme.activation)
    assert pair[0] is not None and pair[1] is not None
    return pair[0], pair[1]


def calibrator_of(key: str, chosen: Experiment) -> AnyCalibrator:
    """Return the calibrator of an entry of the golden ``calibrators``; percentiles have the recipe's edge."""
    _, kind, *rest = key.split()
    if kind == "percentile":
        assert isinstance(chosen.calibrator, PercentileCalibrator)
        return chosen.calibrator.model_copy(update={"percentile": float(rest[0])})
    made: dict[str, AnyCalibrator] = {
        "max": MaxCalibrator(kind="max"),
        "mse": MseCalibrator(kind="mse"),
        "entropy": EntropyCalibrator(kind="entropy"),
    }
    return made[kind]


def range_end(name: str, calibrator: AnyCalibrator, grid: Grid) -> float:
    """Return the largest value of the range that a calibrator finds for a tensor, over two batches.

    NaN stands for a range that qexp refuses.
    """
    statistics = CalibrationStatistics()
    for batch in np.array_split(inputs.tensors()[name], 2):
        statistics.add("value", torch.from_numpy(batch.copy()))
    try:
        scale, _ = scale_and_zero_point(*activation_range(statistics["value"], calibrator, grid), grid)
    except QuantizationError:
        return float("nan")
    return float(scale.double() * grid.qmax)


def steps(grid: Grid) -> Array:
    """Return the integers of the fixed values at scale 0.25."""
    whole = Grid(grid.bits, grid.signed, grid.symmetric, narrow=grid.narrow)
    zero, scale = torch.tensor(0, dtype=torch.int32), torch.tensor(0.25)
    result: Array = quantize(torch.from_numpy(inputs.points(0.25, grid.bits)), scale, zero, whole).numpy()
    return result


def passes(grid: Grid) -> Array:
    """Return which of the fixed values pass their gradient."""
    quantizer = Quantizer("value", Grid(grid.bits, grid.signed, grid.symmetric, narrow=grid.narrow))
    quantizer.set_scale(torch.tensor(0.25), torch.tensor(0, dtype=torch.int32))
    quantizer.switch(QuantizerMode.FROZEN)
    values = torch.from_numpy(inputs.points(0.25, grid.bits)).requires_grad_()
    quantizer(values).sum().backward()
    assert values.grad is not None
    return (values.grad != 0).int().numpy()


def largest_of_rows(grid: Grid) -> tuple[Array, Array]:
    """Return the scale of each row of a weight, and whether its largest magnitude passes its gradient."""
    weight = torch.from_numpy(inputs.rows(inputs.tensors()["normal"]).copy()).requires_grad_()
    quantizer = Quantizer("weight", grid, channels=len(weight))
    quantizer.set_range(*weight_range(weight, Calibrator(weights="max"), grid))
    quantizer.switch(QuantizerMode.FROZEN)
    quantizer(weight).sum().backward()
    assert weight.grad is not None
    place = weight.detach().abs().argmax(1, keepdim=True)
    return quantizer.scale.numpy(), (weight.grad.gather(1, place) != 0).int().flatten().numpy()


def value_rows(golden: Mapping[str, Any]) -> Iterator[Row]:
    """Compare integers and gradients of single quantizers."""
    for bits in (4, 8):
        real = golden["values"][str(bits)]
        for what, grid in zip(("weight", "activation"), grids(bits), strict=True):
            yield counts_row(NAME, f"integers of the {what} grid, {bits} bits", real["steps"], steps(grid))
        grid = grids(bits)[1]
        yield counts_row(NAME, f"values whose gradient passes, {bits} bits", real["passes"], passes(grid))
    scales, passed = largest_of_rows(grids(8)[0])
    real = golden["values"]["rows"]
    yield scales_row(NAME, "weight scales of rows", real["scales"], scales)
    yield counts_row(NAME, "rows whose largest weight passes its gradient", real["passes"], passed)


def range_rows(golden: Mapping[str, Any]) -> Iterator[Row]:
    """Compare the ranges of plain tensors."""
    grid, chosen = grids(8)[1], recipe()
    for kind in ("max", "percentile", "mse", "entropy"):
        keys = [
            key for key in golden["calibrators"] if key.split()[1] == kind and not key.startswith("zeros")
        ]
        real = [golden["calibrators"][key] for key in keys]
        ours = [range_end(key.split()[0], calibrator_of(key, chosen), grid) for key in keys]
        tolerance, variant = (BIN, "") if kind == "entropy" else (1e-4, SEARCH if kind == "mse" else "")
        yield scales_row(NAME, f"ranges, {kind}", real, ours, variant, tolerance=tolerance)


PARTS = {"q": "query", "k": "key", "v": "value", "a": "probs"}


def site_of(name: str) -> tuple[str, str]:
    """Return qexp's kind and module of a quantizer of the package."""
    module, _, last = name.rpartition(".")
    if last in ("_weight_quantizer", "_input_quantizer"):
        return f"linear.{last.split('_')[1]}", module
    if last.startswith("matmul_"):
        return f"matmul.{PARTS[last.split('_')[1]]}", module
    return "residual.input", f"{module}.dropout" if last == "add_local_input_quantizer" else module


def sites_row(golden: Mapping[str, Any]) -> Row:
    """Compare the lists of quantized values, with bits and the number of ranges."""
    found = site_quantizers(calibrated(recipe("calibrator=max"), inputs.bert_batches(1)))
    ours = {site: (each.grid.bits, each.scale.numel()) for site, each in found.items()}
    real = {site_of(name): tuple(form) for name, form in golden["sites"].items()}
    missing, more = set(real) - set(ours), set(ours) - set(real)
    apart = [site for site in set(real) & set(ours) if real[site] != ours[site]]
    modules = sorted({module for _, module in more})
    text = f"{len(missing)} missing, {len(more)} more {modules}, {len(apart)} of another form"
    return Row(NAME, "sites", str(len(real)), str(len(ours)), text, real == ours)


CASES = {
    "max": ("calibrator=max",),
    "percentile": (),
    "percentile fused": ("placement.fuse_qkv=true",),
}
"""Settings beside the recipe's, for each case of the package's."""


def bert_row(case: str, arrays: Mapping[str, Array], quantization: QuantizedModel, setting: str) -> Row:
    """Compare the ranges of all activations that both have."""
    sites = site_quantizers(quantization)
    real, ours = [], []
    for key, value in arrays.items():
        label, _, name = key.partition("|")
        if label == case and name.endswith("_quantizer") and not name.endswith("_weight_quantizer"):
            quantizer = sites.get(site_of(name))
            if quantizer is not None:
                real.append(float(value[0]))
                ours.append(float(threshold(quantizer)))
    return scales_row(NAME, f"ranges of BERT, {case}{setting}", np.array(real), np.array(ours))


def float_row(arrays: Mapping[str, Array]) -> Row:
    """Compare logits in floating point."""
    batches = inputs.bert_batches(5)
    ours = logits(calibrated(recipe(), batches[:1]).model, batches[4])
    return logits_row(NAME, "logits in floating point", arrays["logits float"], ours)


def model_rows(arrays: Mapping[str, Array], cases: Sequence[str] = tuple(CASES)) -> Iterator[Row]:
    """Compare ranges of the random BERT, and logits."""
    batches = inputs.bert_batches(5)
    for case in cases:
        words = CASES[case]
        quantization = calibrated(recipe(*words), batches[:4])
        yield bert_row(case, arrays, quantization, "")
        quantization.freeze()
        result = logits(quantization.model, batches[4])
        yield logits_row(NAME, f"first logits, {case}", arrays[f"{case}|logits"], result)
        quantization = calibrated(recipe(*words), batches[:4], plain=True)
        yield bert_row(case, arrays, quantization, ", padding counted")


def rows(golden: Mapping[str, Any], arrays: Mapping[str, Array]) -> Iterator[Row]:
    """Return all comparisons with QDQBERT."""
    yield sites_row(golden)
    yield from range_rows(golden)
    yield from value_rows(golden)
    yield float_row(arrays)
    yield from model_rows(arrays)
