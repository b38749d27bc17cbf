"""Ranges of activations in a Record, compared with the quantizers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from qexp.artifacts.types import Ranges
from qexp.artifacts.types import Statistics as StatisticsArtifact
from qexp.config import (
    ActivationScheme,
    MaxCalibrator,
    PercentileCalibrator,
    Placement,
    Quant,
    QuantizationConfig,
    Scheme,
)
from qexp.pipeline.activation_ranges import activation_ranges, coarse_ranges, sqnr
from qexp.quant.calibration.embedding_groups import EmbeddingGroups
from qexp.quant.calibration.estimators import activation_range
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.grid import Grid, activation_grid, quantize_dequantize, scale_and_zero_point
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode

PLACEMENT = Placement(name="x", sites=("linear.input",))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("clip", [1.0, 0.5])
def test_noise_is_that_of_quantizing_the_values(
    tmp_path: Path, bits: int, symmetric: bool, clip: float
) -> None:
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(bits)) * 3
    seen = CalibrationStatistics()
    seen.add("layer:linear.input", values)
    scheme = Scheme.model_validate({"activation": {"symmetric": symmetric}})
    quant_config = QuantizationConfig(
        placement=Placement(name="x", sites=("linear.input",)),
        quant=Quant(activation_bits=bits),
        scheme=scheme,
    )
    grid = activation_grid(bits, quant_config.scheme.activation)
    assert grid is not None
    low, high = activation_range(seen["layer:linear.input"], MaxCalibrator(kind="max"), grid)
    scale, zero = scale_and_zero_point(low * clip, high * clip, grid)
    (told,) = _told(tmp_path, quant_config, seen, grid, scale, zero).values()
    quantized = quantize_dequantize(values, scale, grid.qmin - zero, grid.qmax - zero)
    expected = 10 * math.log10(float((values**2).sum() / ((values - quantized) ** 2).sum()))
    assert told["sqnr"] == pytest.approx(expected, abs=0.1)
    assert told["seen_low"] == float(values.min())
    assert told["seen_high"] == float(values.max())
    assert told["high"] == pytest.approx(float((grid.qmax - zero) * scale), rel=1e-6)


def test_groups_of_dimensions_make_the_noise_of_all_dimensions(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, 400, 4, generator=generator) * torch.tensor([1.0, 0.0, 30.0, 2.0])
    seen, name = CalibrationStatistics(), "layer.0:linear.input"
    seen.add(name, values, dimensions=True)
    activation = ActivationScheme(granularity="per_embedding_group", groups=2)
    quant_config = QuantizationConfig(placement=PLACEMENT, scheme=Scheme(activation=activation))
    grid = Grid(8, signed=False, symmetric=False, axis=-1)
    quantizer = Quantizer(name, grid, grouping=EmbeddingGroups("layer.0", 4, 2, True))
    quantizer.set_members(torch.tensor([0, 0, 1, 1]))
    quantizer.set_range(torch.tensor([-3.0, -90.0]), torch.tensor([4.0, 110.0]))
    statistics, ranges = StatisticsArtifact(tmp_path, "s"), Ranges(tmp_path, "r")
    seen.save(statistics.file)
    fields = {"scale": quantizer.scale, "zero_point": quantizer.zero_point, "members": quantizer.members}
    fields["levels"] = torch.tensor([0, 255])
    save_file({f"{name}/{field}": tensor for field, tensor in fields.items()}, ranges.file)
    (told,) = activation_ranges(quant_config, statistics, ranges).values()
    quantizer.switch(QuantizerMode.FROZEN)
    noise = (quantizer(values) - values).double().square().sum()
    assert told["sqnr"] == pytest.approx(
        10 * math.log10(float(values.double().square().sum() / noise)), abs=0.1
    )
    assert (told["low"], told["high"]) == (pytest.approx(-90, rel=0.01), pytest.approx(110, rel=0.01))
    assert (told["seen_low"], told["seen_high"]) == (float(values.min()), float(values.max()))


def _told(
    folder: Path,
    quant_config: QuantizationConfig,
    seen: CalibrationStatistics,
    grid: Grid,
    scale: torch.Tensor,
    zero: torch.Tensor,
) -> dict:
    statistics, ranges = StatisticsArtifact(folder, "s"), Ranges(folder, "r")
    seen.save(statistics.file)
    name, levels = "layer:linear.input", torch.tensor([grid.qmin, grid.qmax])
    save_file({f"{name}/scale": scale, f"{name}/zero_point": zero, f"{name}/levels": levels}, ranges.file)
    return activation_ranges(quant_config, statistics, ranges)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("outlier", [1e6, None])
def test_a_percentile_that_the_histogram_cannot_tell_is_told(
    outlier: float | None, first: bool, tmp_path: Path
) -> None:
    """The right one is 3.9; a single value of 1e6 makes bins so wide that no other is in the second."""
    batches = list(torch.randn(200_000, generator=torch.Generator().manual_seed(0)).chunk(10))
    if outlier is not None:
        batches[0 if first else -1][0] = outlier
    seen, name = CalibrationStatistics(), "layer:linear.input"
    for batch in batches:
        seen.add(name, batch)
    grid = activation_grid(8, Scheme().activation)
    assert grid is not None
    calibrator = PercentileCalibrator(kind="percentile", percentile=99.99)
    scale, zero = scale_and_zero_point(*activation_range(seen[name], calibrator, grid), grid)
    statistics, ranges = StatisticsArtifact(tmp_path, "s"), Ranges(tmp_path, "r")
    seen.save(statistics.file)
    levels = torch.tensor([grid.qmin, grid.qmax])
    save_file({f"{name}/scale": scale, f"{name}/zero_point": zero, f"{name}/levels": levels}, ranges.file)
    said = coarse_ranges("percentile", statistics, ranges)
    assert len(said) == (outlier is not None)
    assert all(name in sentence for sentence in said)
    end = float((grid.qmax - zero) * scale)
    assert outlier is not None or end == pytest.approx(3.9, abs=0.2)
    assert coarse_ranges("max", statistics, ranges) == []


def test_no_noise_is_no_number() -> None:
    assert sqnr(np.array([0, 0]), 0.0, 1.0, -128, 127) is None
    assert sqnr(np.array([0, 0, 0, 0]), 1.0, 1.0, -128, 127) is None


def test_float_activations_have_no_ranges(tmp_path: Path) -> None:
    quant_config = QuantizationConfig(
        placement=Placement(name="x", sites=("linear.weight",)),
        quant=Quant(activation_bits=32),
        scheme=Scheme(),
    )
    assert activation_ranges(quant_config, StatisticsArtifact(tmp_path, "s"), Ranges(tmp_path, "r")) == {}
