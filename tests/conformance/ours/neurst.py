"""qexp's ``recipe=neurst`` beside NeurST 0.1.2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from qexp.config import Experiment
from qexp.quant.grid import Grid, activation_grid, quantize, scale_and_zero_point, weight_grid
from qexp.quant.insertion.insert import QuantizedModel, insert
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode
from tests.conformance import inputs
from tests.conformance.inputs import Array
from tests.conformance.ours import marian
from tests.conformance.table import Row, counts_row, logits_row, values_row
from tests.conftest import experiment

NAME = "neurst"
TIES = "docs/real_systems.md: half to even, as ONNX has it"
LSQ = "head of conf/recipe/neurst.yaml: learned as in LSQ"


def recipe() -> Experiment:
    """Return the recipe on a translation."""
    return experiment("task=translation", "model=transformer_tiny", "recipe=neurst")


def grid_of(kind: str, bits: int) -> Grid:
    """Return the recipe's grid of a kind of NeurST's quantizers."""
    scheme = recipe().scheme
    if kind == "weight":
        grid = weight_grid(bits, scheme.weight)
    else:
        grid = activation_grid(bits, scheme.activation, kind)  # type: ignore[arg-type]
    assert grid is not None
    return grid


def scale_of(kind: str, grid: Grid) -> torch.Tensor:
    """Return the scale that the recipe has where a step of NeurST's is 0.25, or 2**-bits of probabilities."""
    if kind != "softmax":
        return torch.tensor(0.25)
    largest = torch.tensor(recipe().placement.largest_probability(grid.bits))
    return scale_and_zero_point(torch.zeros(()), largest, grid)[0]


def steps(kind: str, grid: Grid) -> Array:
    """Return the quantized fixed values in NeurST's steps, rounded to whole ones."""
    step = 2.0**-grid.bits if kind == "softmax" else 0.25
    scale, zero = scale_of(kind, grid), torch.tensor(0, dtype=torch.int32)
    values = torch.from_numpy(inputs.points(step, grid.bits))
    integers = quantize(values, scale, zero, grid).double() * scale.double() / step
    result: Array = integers.round().int().numpy()
    return result


def is_tie(bits: int) -> Array:
    """Return which of the fixed values lie half-way between two steps."""
    return np.asarray(inputs.points(1.0, bits) % 1 == 0.5)


def learning(kind: str, grid: Grid) -> tuple[Array, float | None]:
    """Return which of the fixed values pass their gradient, and the gradient of the range's upper end.

    LSQ's factor is taken out.
    """
    step = 2.0**-grid.bits if kind == "softmax" else 0.25
    quantizer = Quantizer("value", grid, values="act" if kind == "weight" else kind)  # type: ignore[arg-type]
    quantizer.set_scale(scale_of(kind, grid), torch.tensor(0, dtype=torch.int32))
    quantizer.switch(QuantizerMode.LEARNED)
    values = torch.from_numpy(inputs.points(step, grid.bits)).requires_grad_()
    (quantizer(values) * torch.linspace(-1, 1, len(values))).sum().backward()
    assert values.grad is not None
    slope = None
    if quantizer.log_scale is not None and quantizer.log_scale.grad is not None:
        factor = 1 / np.sqrt(len(values) * grid.qmax)
        slope = float(quantizer.log_scale.grad) / factor / float(quantizer.scale) / grid.qmax
    return (values.grad != 0).int().numpy(), slope


def value_rows(golden: Mapping[str, Any]) -> Iterator[Row]:
    """Compare single quantizers."""
    for key, real in golden["values"].items():
        kind, bits = key.split()
        grid = grid_of(kind, int(bits))
        ties, found = is_tie(grid.bits), steps(kind, grid)
        expected = np.array(real["steps"])
        label = f"{kind}, {bits} bits"
        yield counts_row(NAME, f"integers but ties, {label}", expected[~ties], found[~ties])
        yield counts_row(NAME, f"integers of ties, {label}", expected[ties], found[ties], TIES)
        passes, slope = learning(kind, grid)
        row = counts_row(NAME, f"values whose gradient passes, {label}", real["passes"], passes)
        yield row
        if real["clip"] is not None and slope is not None:
            values = np.array([real["clip"]]), np.array([slope])
            yield values_row(NAME, f"gradient of the clip value, {label}", *values, variant=LSQ * row.equal)


def quantized(chosen: Experiment) -> QuantizedModel:
    """Return Marian quantized with weight ranges of the recipe, and activations up to ``inputs.CLIP``."""
    model = marian.marian()
    quantization = insert(model, chosen.quant_config)
    with quantization.observing():
        marian.logits(model)
    quantization.calibrate(quantization.statistics(), chosen.calibrator)
    for name, sites in quantization.activations().items():
        quantizer = quantization.quantizers[name]
        if quantizer.values != "softmax":
            high = inputs.CONTEXT_CLIP if sites[0].kind == "attention.context" else inputs.CLIP
            low = 0.0 if quantizer.values == "relu" else -high
            quantizer.set_range(torch.tensor(low), torch.tensor(high))
    return quantization


def sites_row(golden: Mapping[str, Any], quantization: QuantizedModel) -> Row:
    """Compare ranges, each with all its sites."""
    groups: dict[str, set[tuple[str, str]]] = {}
    for site in quantization.sites:
        groups.setdefault(site.quantizer, set()).add((site.kind, site.module))
    ours = {frozenset(group) for group in groups.values()}
    real = {marian.sites_of(name) for name in golden["sites"]["used"]}
    real |= {frozenset({("matmul.probs", module)}) for module in marian.attentions().values()}
    text = f"{len(real - ours)} missing, {len(ours - real)} more"
    return Row(NAME, "ranges and their sites", str(len(real)), str(len(ours)), text, real == ours)


def rows(golden: Mapping[str, Any], arrays: Mapping[str, Array]) -> Iterator[Row]:
    """Return all comparisons with NeurST."""
    quantization = quantized(recipe())
    yield sites_row(golden, quantization)
    yield from value_rows(golden)
    flat = {name: value.reshape(-1, value.shape[-1]) for name, value in arrays.items()}
    size = inputs.TRANSLATOR["vocabulary"]
    result = marian.logits(quantization.model).reshape(-1, size)
    yield logits_row(NAME, "logits in floating point, 2+2 layers", flat["logits float"], result)
    quantization.freeze()
    result = marian.logits(quantization.model).reshape(-1, size)
    yield logits_row(NAME, "logits, 2+2 layers, by token", flat["logits"], result)
