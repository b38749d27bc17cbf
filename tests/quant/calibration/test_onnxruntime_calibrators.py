"""Ranges compared with those of ONNX Runtime's calibrators, which run a graph over the same batches.

Tolerances: extremes and moving averages are equal, except that ONNX Runtime averages in float32. Percentiles
differ by bins, as both have their own: ONNX Runtime takes the edge below the bin that reaches the share, this
project the one above. ONNX Runtime's entropy is another variant of the same idea: see the test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    CalibrationMethod,
    create_calibrator,
)
from torch import Tensor

from qexp.config import AnyCalibrator, EmaCalibrator, EntropyCalibrator, MaxCalibrator, PercentileCalibrator
from qexp.quant.calibration.estimators import activation_range
from qexp.quant.calibration.statistics import CalibrationStatistics, ValueStatistics
from qexp.quant.grid import Grid

SYMMETRIC = Grid(8, signed=True, symmetric=True)
ASYMMETRIC = Grid(8, signed=False, symmetric=False)
BINS = 4096
"""Bins of ONNX Runtime's histograms."""


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands out batches, one after another."""

    def __init__(self, batches: list[Tensor]) -> None:
        self.left = [{"x": batch.numpy()} for batch in batches]

    def get_next(self) -> dict[str, Any] | None:
        """The next batch; None at the end."""
        return self.left.pop(0) if self.left else None


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``y = -x``, ``z = |y|``: the calibrators look at all three, and these tests at ``y``."""
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["y"], ["z"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "z")]
    made = helper.make_model(
        helper.make_graph(nodes, "graph", [ends[0]], [ends[1]]),
        opset_imports=[helper.make_opsetid("", 20)], ir_version=10,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    onnx.save(made, path)
    return path


def batches(count: int = 4, seed: int = 0) -> list[Tensor]:
    """Batches of a skewed distribution with long tails; later ones reach further."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(20_011, generator=generator) * (1 + 0.1 * k)).exp() - 0.8 for k in range(count)]


def observed(data: list[Tensor]) -> ValueStatistics:
    """Statistics of ``y``."""
    statistics = CalibrationStatistics()
    for batch in data:
        statistics.add("y", -batch)
    return statistics["y"]


def ours(data: list[Tensor], calibrator: AnyCalibrator, grid: Grid) -> tuple[float, float]:
    """The range by this project."""
    low, high = activation_range(observed(data), calibrator, grid)
    return float(low), float(high)


def theirs(graph: Path, data: list[Tensor], method: CalibrationMethod, **options: Any) -> tuple[float, float]:
    """The range of ``y`` by ONNX Runtime, which is shown a batch at a time."""
    augmented = str(graph.with_name("augmented.onnx"))
    calibrator = create_calibrator(
        graph, augmented_model_path=augmented, calibrate_method=method, extra_options=options
    )
    for batch in data:
        calibrator.collect_data(Reader([batch]))
    low, high = calibrator.compute_data()["y"].range_value
    return np.asarray(low).item(), np.asarray(high).item()


def test_max(graph: Path) -> None:
    data = batches()
    result = ours(data, MaxCalibrator(kind="max"), ASYMMETRIC)
    assert result == theirs(graph, data, CalibrationMethod.MinMax)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
def test_ema(graph: Path, decay: float) -> None:
    data = batches(6)
    options = {"moving_average": True, "averaging_constant": 1 - decay}
    expected = theirs(graph, data, CalibrationMethod.MinMax, **options)
    result = ours(data, EmaCalibrator(kind="ema", decay=decay), ASYMMETRIC)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 99.99])
@pytest.mark.parametrize("grid", [SYMMETRIC, ASYMMETRIC])
def test_percentile_within_a_bin_of_each(graph: Path, percentile: float, grid: Grid) -> None:
    data = batches()
    options = {"num_bins": BINS, "percentile": percentile, "symmetric": grid.symmetric}
    expected = theirs(graph, data, CalibrationMethod.Percentile, **options)
    calibrator = PercentileCalibrator(kind="percentile", percentile=percentile)
    result = ours(data, calibrator, grid)
    of_one = 1 if grid.symmetric else 2  # it counts magnitudes, or both signs
    width = of_one * float(data[0].abs().max()) / BINS + observed(data).histogram.width
    np.testing.assert_allclose(result, expected, atol=1.001 * width)


def long_tailed(kind: str, seed: int, count: int = 100_000) -> Tensor:
    """Values that are alike on both sides of zero."""
    generator = torch.Generator().manual_seed(seed)
    normal, even = (make(count, generator=generator) for make in (torch.randn, torch.rand))
    spread = torch.randn(4, count, generator=generator).square().mean(0).sqrt()
    laplace = -(even - 0.5).sign() * torch.log1p(1e-6 - 2 * (even - 0.5).abs())
    return {"normal": normal, "laplace": laplace, "student": normal / spread, "even": even - 0.5}[kind]


@pytest.mark.parametrize("kind", ["normal", "laplace", "student", "even"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_entropy_within_a_quarter(graph: Path, kind: str, seed: int) -> None:
    """Not closer, because the divergences differ, and are nearly as small for many ranges.

    ONNX Runtime merges bins of both signs, whole ones only, so that up to a level of bins at one end has a
    density of 0; it truncates densities to integers, adds 0.0001 to what is empty, and leaves the bin of
    zeros as it is. Thresholds bin by bin are held against pytorch-quantization in ``test_entropy``.
    """
    data, bins = [long_tailed(kind, seed)], 512
    options = {"num_bins": 2 * bins, "num_quantized_bins": 256, "symmetric": True}
    expected = max(map(abs, theirs(graph, data, CalibrationMethod.Entropy, **options)))
    result = max(map(abs, ours(data, EntropyCalibrator(kind="entropy", bins=bins), SYMMETRIC)))
    assert 0.8 <= result / expected <= 1.25
    if kind == "student":
        assert max(result, expected) < 0.65 * float(data[0].abs().max())
