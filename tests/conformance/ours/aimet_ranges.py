"""qexp's quantizers, with the grids of ``recipe=aimet``, beside AIMET 2.42."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from qexp.config import Calibrator, Experiment, MaxCalibrator, SqnrCalibrator
from qexp.quant.calibration.estimators import activation_range, weight_range
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.grid import Grid, activation_grid, fake_quantize, quantize, scale_and_zero_point, weight_grid
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode
from tests.conformance import inputs
from tests.conformance.inputs import Array
from tests.conformance.table import Row, counts_row, scales_row, values_row
from tests.conftest import experiment

NAME = "aimet"
CALIBRATORS: dict[str, MaxCalibrator | SqnrCalibrator] = {
    "tf": MaxCalibrator(kind="max"),
    "tf_enhanced": SqnrCalibrator(kind="sqnr", weights="sqnr"),
    "sqnr": SqnrCalibrator(kind="sqnr", weights="sqnr"),
}
HISTOGRAM = "docstring of qexp.quant.calibration.sqnr; the noise is no larger"
ALIKE = 0.01
"""Share of noise up to which ranges count as equally good."""


def recipe(*words: str) -> Experiment:
    """Return an experiment of ``recipe=aimet`` on MRPC."""
    return experiment("task=mrpc", "recipe=aimet", *words)


def weight_encoding(values: Array, scheme: str, grid: Grid) -> tuple[Array, Array]:
    """Return qexp's scales of a weight, and the lowest integer counted from zero."""
    weight = torch.from_numpy(values)
    calibrator = Calibrator(weights="max" if scheme == "tf" else "sqnr")
    scale, zero = scale_and_zero_point(*weight_range(weight, calibrator, grid), grid)
    return scale.numpy().ravel(), (grid.qmin - zero).numpy().ravel()


def activation_encoding(batches: list[Array], scheme: str, grid: Grid) -> tuple[Array, Array]:
    """Return qexp's scale of an activation, and the lowest integer counted from zero."""
    statistics = CalibrationStatistics()
    for batch in batches:
        statistics.add("value", torch.from_numpy(batch))
    low, high = activation_range(statistics["value"], CALIBRATORS[scheme], grid)
    scale, zero = scale_and_zero_point(low, high, grid)
    return scale.numpy().ravel(), (grid.qmin - zero).numpy().ravel()


def encoding(key: str, grid: Grid) -> tuple[Array, Array]:
    """Return qexp's encoding of one entry of the golden ``ranges``, on a grid of its bits."""
    name, scheme, _, form = key.split()
    if form == "asymmetric":
        batches = inputs.batches() if name == "batches" else [inputs.tensors()[name]]
        return activation_encoding(batches, scheme, grid)
    values = inputs.tensors()[name]
    return weight_encoding(inputs.rows(values) if form == "rows" else values, scheme, grid)


def steps(key: str, scale: float, grid: Grid) -> Array:
    """Return whole steps from zero that qexp rounds the fixed values to."""
    zero = torch.tensor(0 if grid.symmetric else 100, dtype=torch.int32)
    values = torch.from_numpy(inputs.points(scale, grid.bits))
    result: Array = (quantize(values, torch.tensor(scale), zero, grid) - zero).numpy()
    return result


def learning(scale: float, grid: Grid, method: Any) -> tuple[Array, float, Quantizer]:
    """Return which values pass their gradient, the gradient of the scale, and the quantizer that learns.

    The loss is that of ``real.aimet``: quantized values, weighed by a ramp.
    """
    quantizer = Quantizer("value", grid)
    quantizer.set_scale(torch.tensor(scale), torch.tensor(0 if grid.symmetric else 100, dtype=torch.int32))
    quantizer.learns_ends = getattr(method, "range_parameters", "scale") == "ends"
    quantizer.gradient = getattr(method, "gradient", "range")
    quantizer.switch(QuantizerMode.LEARNED)
    quantizer.renew_bounds()
    values = torch.from_numpy(inputs.points(scale, grid.bits)).requires_grad_()
    (quantizer(values) * torch.linspace(-1, 1, len(values))).sum().backward()
    assert values.grad is not None
    return (values.grad != 0).int().numpy(), gradient_of_scale(quantizer, values.numel()), quantizer


def gradient_of_scale(quantizer: Quantizer, elements: int) -> float:
    """Return dL/dscale at a fixed zero point, without LSQ's factor."""
    steps = quantizer.grid.qmax - quantizer.grid.qmin
    ends = getattr(quantizer, "moved_ends", None)
    if ends is not None:
        return float(ends.grad[1] - ends.grad[0]) * steps / 2
    assert quantizer.log_scale is not None and quantizer.log_scale.grad is not None
    factor = 1 / np.sqrt(elements * quantizer.grid.qmax)
    return float(quantizer.log_scale.grad) / float(quantizer.scale) / factor


def noise(values: Array, scale: Any, first: Any, steps: int, *, ties: float = 1.0) -> Array:
    """Return the squared error of each row of values, that of clipped ones three times (``sqnr``).

    Args:
        values: Values [rows, values].
        scale: Scale of each row.
        first: Lowest integer of each row, counted from zero.
        steps: Highest integer minus the lowest.
        ties: Factor close to 1 that decides where values beside a tie go. With a scale of the largest
            magnitude over ``steps / 2`` the largest is half a step beyond the highest integer.
    """
    scale, first = np.asarray(scale, np.float64)[:, None], np.asarray(first, np.float64)[:, None]
    exact = values.astype(np.float64)
    level = np.round(exact / scale * ties) - first
    error = (np.clip(level, 0, steps) + first) * scale - exact
    result: Array = (error**2 * np.where((level < 0) | (level > steps), 3.0, 1.0)).sum(1)
    return result


def noise_beyond(values: Array, real: tuple[Any, Any, int], ours: tuple[Any, Any, int]) -> float:
    """Return by what share the noise of qexp's ranges is above that of AIMET's, at most over rows.

    Args:
        values: Values [rows, values].
        real: AIMET's scale and lowest integer of each row, and the number of steps.
        ours: The same of qexp.
    """
    least = 1e-9 * (values.astype(np.float64) ** 2).sum(1)
    theirs = noise(values, *real, ties=1 + 1e-6) + least
    mine = noise(values, *ours, ties=1 - 1e-6) + least
    return float((mine / theirs).max() - 1)


def values_of(key: str) -> Array:
    """Return the values of one entry of the golden ``ranges``, [ranges, values]."""
    name, _, _, form = key.split()
    if name == "batches":
        return np.concatenate(inputs.batches())[None]
    values = inputs.tensors()[name]
    return inputs.rows(values) if form == "rows" else values[None]


FORMS = {"symmetric": "weight scales", "rows": "weight scales of rows", "asymmetric": "activation scales"}


def recipe_grid(key: str, chosen: Experiment) -> Grid:
    """Return the grid that the recipe has for an entry of the golden ``ranges``."""
    _, _, bits, form = key.split()
    if form == "asymmetric":
        grid = activation_grid(int(bits), chosen.scheme.activation)
    else:
        granularity = "per_channel" if form == "rows" else "per_tensor"
        grid = weight_grid(int(bits), chosen.scheme.weight.model_copy(update={"granularity": granularity}))
    assert grid is not None
    return grid


def range_rows(golden: Mapping[str, Any]) -> Iterator[Row]:
    """Compare scales of plain tensors, with the recipe's grids.

    Zeros are left out: the smallest scale is another one, and nothing depends on it.
    """
    chosen = recipe()
    for program, title in (("tf", "max"), ("sqnr", "sqnr"), ("tf_enhanced", "sqnr")):
        for form, what in FORMS.items():
            keys = [
                key
                for key in golden["ranges"]
                if key.split()[1] == program and key.endswith(f" {form}") and not key.startswith("zeros")
            ]
            real = [golden["ranges"][key] for key in keys]
            grids = [recipe_grid(key, chosen) for key in keys]
            ours = [encoding(key, grid) for key, grid in zip(keys, grids, strict=True)]
            noisier = max(
                noise_beyond(
                    values_of(key), (*theirs, 2 ** int(key.split()[2]) - 1), (*mine, grid.qmax - grid.qmin)
                )
                for key, theirs, mine, grid in zip(keys, real, ours, grids, strict=True)
            )
            variant = HISTOGRAM if program != "tf" and noisier < ALIKE else ""
            scales = [np.concatenate([each[0] for each in side]) for side in (real, ours)]
            yield scales_row(NAME, f"{what}, {program} against {title}", *scales, variant)


GRIDS = {
    "asymmetric 8": Grid(8, signed=False, symmetric=False),
    "symmetric 8": Grid(8, signed=True, symmetric=True),
    "symmetric 4": Grid(4, signed=True, symmetric=True),
}
"""Grids of AIMET's fixed quantizers, with their lowest integers."""


def value_rows(golden: Mapping[str, Any]) -> Iterator[Row]:
    """Compare integers, and the gradients of range learning as ``recipe=aimet/w4a8_squad`` trains."""
    method = experiment("task=squad", "recipe=aimet/w4a8_squad").method
    for key, grid in GRIDS.items():
        real = golden["values"][key]
        count = grid.qmax - grid.qmin
        yield counts_row(NAME, f"integers, {key} bits", real["steps"], steps(key, real["scale"], grid))
        passes, gradient, _ = learning(real["scale"], grid, method)
        yield counts_row(NAME, f"values whose gradient passes, {key} bits", real["passes"], passes)
        if grid.symmetric:
            expected = (real["maximum"] - real["minimum"]) * count / 2
            yield values_row(
                NAME, f"dL/dscale, {key} bits", np.array([expected]), np.array([gradient]), tolerance=1e-3
            )


def encodings_row(golden: Mapping[str, Any]) -> Row:
    """Compare a linear layer with the one that aimet-onnx computes from an encodings file."""
    scale = torch.tensor(inputs.INPUT_SCALE)
    zero = torch.tensor(inputs.INPUT_ZERO_POINT, dtype=torch.int32)
    scales = torch.from_numpy(inputs.linear_scales())
    weight, values = (torch.from_numpy(each) for each in inputs.linear_layer())
    rows = Grid(4, signed=True, symmetric=True, narrow=True, axis=0)
    x = fake_quantize(values, scale, zero, Grid(8, signed=False, symmetric=False))
    result = x @ fake_quantize(weight, scales, torch.zeros(len(scales), dtype=torch.int32), rows).T
    return values_row(NAME, "ONNX with encodings 1.0.0, outputs", golden["onnx"]["outputs"], result.numpy())
