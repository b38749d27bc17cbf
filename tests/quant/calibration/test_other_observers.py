"""Ranges compared with the observers of torch, torchao and NVIDIA's Model Optimizer, on the same batches.

The squared error of Model Optimizer is not a usable reference: version 0.47 passes the number of bits to its
fake quantization as a bias. Its import takes ten seconds; torchao is in the extra ``bench`` only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.ao.quantization.observer import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
)

from qexp.config import (
    AnyCalibrator,
    Calibrator,
    EmaCalibrator,
    EntropyCalibrator,
    MaxCalibrator,
    MseCalibrator,
    PercentileCalibrator,
)
from qexp.quant.calibration.estimators import activation_range, weight_range
from qexp.quant.calibration.statistics import CalibrationStatistics, ValueStatistics
from qexp.quant.grid import Grid, fake_quantize, scale_and_zero_point

SYMMETRIC = Grid(8, signed=True, symmetric=True)
ASYMMETRIC = Grid(8, signed=False, symmetric=False)
PER_ROW = Grid(8, signed=True, symmetric=True, axis=0)
MAX = MaxCalibrator(kind="max")
PERCENTILE = 99.9


def batches(count: int = 4, seed: int = 0) -> list[Tensor]:
    """Batches [30, 667] of a skewed distribution with long tails."""
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(30, 667, generator=generator) * (1 + 0.1 * k)).exp() - 0.8 for k in range(count)]


def observed(data: list[Tensor]) -> ValueStatistics:
    """Statistics over batches."""
    statistics = CalibrationStatistics()
    for batch in data:
        statistics.add("value", batch)
    return statistics["value"]


def parameters(data: list[Tensor], calibrator: AnyCalibrator) -> tuple[Tensor, Tensor]:
    """Scale and zero point on the asymmetric grid."""
    return scale_and_zero_point(*activation_range(observed(data), calibrator, ASYMMETRIC), ASYMMETRIC)


@pytest.mark.parametrize(
    ("observer", "calibrator"),
    [
        (MinMaxObserver, MAX),
        (MovingAverageMinMaxObserver, EmaCalibrator(kind="ema", decay=0.99)),
    ],
)
def test_grids_are_those_of_torchs_observers(observer: Any, calibrator: AnyCalibrator) -> None:
    """Scales differ in the last bits: torch divides and averages in float32, this project in float64."""
    data, oracle = batches(), observer(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
    for batch in data:
        oracle(batch)
    scale, zero = oracle.calculate_qparams()
    result = parameters(data, calibrator)
    torch.testing.assert_close(result[0], scale.squeeze(), rtol=1e-6, atol=0)
    assert int(result[1]) == int(zero)


def test_rows_of_a_weight_are_those_of_torchs_observer() -> None:
    """torch divides by half of all steps, 127.5, so its scales are those of the ends times 127 / 127.5."""
    weight = batches(1)[0]
    oracle = PerChannelMinMaxObserver(ch_axis=0, dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
    oracle(weight)
    scale, _ = scale_and_zero_point(*weight_range(weight, Calibrator(), PER_ROW), PER_ROW)
    torch.testing.assert_close(scale * 127 / 127.5, oracle.calculate_qparams()[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("search", ["grid", "golden"])
def test_the_squared_error_is_at_most_that_of_torchs_histogram_observer(search: str) -> None:
    """Two per cent above are left for bins: torch's search is another, and its error one of norms of bins."""
    data = batches()
    oracle = HistogramObserver(dtype=torch.quint8, qscheme=torch.per_tensor_affine)
    for batch in data:
        oracle(batch)
    values, (scale, zero) = torch.cat(data), oracle.calculate_qparams()

    def error(scale: Tensor, zero: Tensor) -> float:
        return float((fake_quantize(values, scale, zero, ASYMMETRIC) - values).double().square().sum())

    result = error(*parameters(data, MseCalibrator(kind="mse", search=search)))  # type: ignore[arg-type]
    assert result <= 1.02 * error(scale.squeeze(), zero.squeeze())


def elsewhere(library: str, data: list[Tensor], folder: Path) -> dict[str, Any]:
    """What ``other_observers`` finds, in a process of its own."""
    if find_spec(library) is None:
        how = "pip install --no-deps nvidia-modelopt==0.47.0 pulp" if library == "modelopt" else "qexp[bench]"
        pytest.skip(f"no second opinion of {library}: {how}")
    file = folder / "batches.npz"
    arrays = {str(index): batch.numpy() for index, batch in enumerate(data)}
    np.savez(file, percentile=np.array(PERCENTILE), **arrays)  # type: ignore[arg-type]
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.other_observers", library, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
def test_ranges_are_those_of_model_optimizer(tmp_path: Path) -> None:
    """Extremes are equal. It bins by another formula in float32, and its bins are widened when later batches
    reach further, so a percentile is right within two bins, counting the edge that each takes, and the
    threshold of the entropy within a stride and a bin."""
    data = batches()
    expected, statistics = elsewhere("modelopt", data, tmp_path), observed(data)
    width = statistics.histogram.width

    def reach(calibrator: AnyCalibrator) -> float:
        low, high = activation_range(statistics, calibrator, SYMMETRIC)
        return max(-float(low), float(high))

    assert reach(MAX) == pytest.approx(expected["max"], rel=1e-7)
    low, high = weight_range(torch.cat(data, dim=1), Calibrator(), PER_ROW)
    np.testing.assert_allclose(torch.maximum(-low, high), expected["rows"], rtol=1e-7)
    percentile = reach(PercentileCalibrator(kind="percentile", percentile=PERCENTILE))
    assert percentile == pytest.approx(expected["percentile"], abs=2.001 * width)
    entropy = reach(EntropyCalibrator(kind="entropy", stride=8))
    assert entropy == pytest.approx(expected["entropy"], abs=9.001 * width)


@pytest.mark.slow
def test_grids_are_those_of_torchao(tmp_path: Path) -> None:
    """In float32, and with rows divided by 127.5, as torch's observer."""
    data = batches()
    expected = elsewhere("torchao", data, tmp_path)
    result = parameters(data, MAX)
    np.testing.assert_allclose(float(result[0]), expected["whole"][0][0], rtol=1e-6)
    assert int(result[1]) == expected["whole"][1][0]
    scale, _ = scale_and_zero_point(*weight_range(torch.cat(data, dim=1), Calibrator(), PER_ROW), PER_ROW)
    np.testing.assert_allclose(scale * 127 / 127.5, expected["rows"][0], rtol=1e-6)
