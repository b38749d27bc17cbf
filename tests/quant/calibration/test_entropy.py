"""Divergences compared with scipy for each threshold; thresholds and ranges with pytorch-quantization."""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from qexp.config import EntropyCalibrator, MaxCalibrator, PercentileCalibrator
from qexp.quant.calibration.entropy import divergences, threshold
from qexp.quant.calibration.estimators import activation_range
from qexp.quant.calibration.histogram import FIRST_BINS
from qexp.quant.calibration.statistics import CalibrationStatistics, ValueStatistics
from qexp.quant.grid import Grid

SYMMETRIC = Grid(8, signed=True, symmetric=True)
UNSIGNED = Grid(8, signed=False, symmetric=False)
ENTROPY = EntropyCalibrator(kind="entropy")


@pytest.fixture(scope="module")
def oracle() -> Any:
    """pytorch-quantization's calibrators: ``calib`` with its module ``histogram``."""
    extension = "pytorch_quantization.cuda_ext"  # not in the wheel; only its fake quantization calls it
    sys.modules.setdefault(extension, types.ModuleType(extension))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports what newer versions of torch advise against
            from pytorch_quantization import calib
    except ImportError as error:
        pytest.skip(
            f"no second opinion: {error}; pip install --no-deps pytorch-quantization==2.1.3 and "
            "pip install absl-py prettytable"
        )
    return calib


def counts(kind: str, bins: int = 300, seed: int = 0) -> Tensor:
    """Counts of magnitudes, int64 [bins], of different shapes."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.arange(bins)
    noise = torch.rand(bins, generator=generator)
    shapes = {
        "normal": 10_000 * torch.exp(-((place / bins * 4) ** 2)) * (0.5 + noise),
        "long tail": 100_000 / (place + 1) ** 2 * (0.5 + noise),
        "sparse": 100 * noise * (torch.rand(bins, generator=generator) < 0.2),
        "flat": 50 + 3 * noise,
        "one outlier": 1000 * noise * (place < 40) + (place == bins - 1),
    }
    return shapes[kind].long()


KINDS = ("normal", "long tail", "sparse", "flat", "one outlier")


def divergence(magnitudes: Tensor, levels: int, end: int) -> float:
    """One threshold's divergence, bin by bin, as the module says it."""
    bins = magnitudes.double().numpy().copy()
    bins[0] = bins[1]
    p, q = bins[:end].copy(), np.zeros(end)
    p[-1] += bins[end:].sum()
    level = np.arange(end) * levels // end
    for index in range(levels):
        inside = (level == index) & (bins[:end] > 0)
        if inside.any():
            q[inside] = bins[:end][inside].mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(scipy.stats.entropy(p, q))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [2, 8, 128, 256, 1024])
def test_divergences_are_those_of_the_distributions(
    kind: str, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qexp.quant.calibration.entropy.BLOCK", 7 * levels)  # thresholds fall into parts
    magnitudes, ends = counts(kind), torch.arange(20, 301, 7)
    result = divergences(magnitudes, levels, ends).numpy()
    expected = [divergence(magnitudes, levels, int(end)) for end in ends]
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)


def test_of_equal_divergences_the_largest_range_is_taken() -> None:
    assert threshold(counts("flat", 200), 256, first=128, stride=1) == 200  # none loses anything but the last
    assert threshold(torch.tensor([5, 0, 0, 0, 0, 0]), 2, first=3, stride=1) == 6  # nothing but zeros
    assert threshold(counts("normal", 100), 8, first=128, stride=1) == 100  # too few bins to choose


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("stride", [1, 3])
def test_thresholds_are_those_of_pytorch_quantization(
    kind: str, bits: int, unsigned: bool, stride: int, oracle: Any
) -> None:
    magnitudes = counts(kind)
    levels = 1 << (bits - 1 + int(unsigned))
    edges = np.arange(301)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = oracle.histogram._compute_amax_entropy(
            magnitudes.numpy().copy(), edges, bits, unsigned, stride=stride, start_bin=128
        )
    assert threshold(magnitudes, levels, first=128, stride=stride) == int(expected)


def observed(batches: list[Tensor]) -> ValueStatistics:
    """Statistics over batches."""
    statistics = CalibrationStatistics()
    for batch in batches:
        statistics.add("value", batch)
    return statistics["value"]


def batches(count: int, *, signed: bool, seed: int) -> list[Tensor]:
    """Batches with long tails; later ones reach further."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(20_011, generator=generator) * (1 + 0.2 * k) for k in range(count)]
    return [batch * batch.abs() if signed else batch.square() for batch in made]


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("signed", [True, False])
def test_ranges_are_those_of_pytorch_quantization_on_the_same_data(
    count: int, signed: bool, oracle: Any
) -> None:
    """One bin apart at most: it bins by another formula in float32, so single values may lie next door.

    It takes the lower edge of the bin that reaches a percentile, this project the upper one.
    """
    data, grid = batches(count, signed=signed, seed=count), SYMMETRIC if signed else UNSIGNED
    calibrator, largest = (
        oracle.HistogramCalibrator(8, None, not signed),
        oracle.MaxCalibrator(8, None, False),
    )
    for batch in data:
        calibrator.collect(batch)
        largest.collect(batch)
    statistics = observed(data)
    width = statistics.histogram.width

    def reach(calibrator: Any) -> float:
        low, high = activation_range(statistics, calibrator, grid)
        return max(-float(low), float(high))

    assert reach(MaxCalibrator(kind="max")) == float(largest.compute_amax())
    bound = float(calibrator.compute_amax("entropy", stride=16))
    assert bound < float(largest.compute_amax())
    own = EntropyCalibrator(kind="entropy", stride=16)
    assert reach(own) == pytest.approx(bound, abs=1e-4 * width if count == 1 else 16.001 * width)
    if signed:
        bound = float(calibrator.compute_amax("percentile", percentile=99.9)) + width
        assert reach(PercentileCalibrator(kind="percentile", percentile=99.9)) == pytest.approx(
            bound, abs=1.001 * width
        )


def test_an_asymmetric_grid_is_clipped_on_both_sides_within_what_was_seen() -> None:
    data = torch.cat(
        [torch.randn(100_000, generator=torch.Generator().manual_seed(0)), torch.tensor([50.0, -3.0])]
    )
    low, high = activation_range(observed([data]), ENTROPY, UNSIGNED)
    bound = float(activation_range(observed([data]), ENTROPY, SYMMETRIC)[1])
    assert float(high) == bound < 50
    assert float(low) == max(float(data.min()), -bound)


@pytest.mark.parametrize("bins", [256, 512, 1024])
def test_coarser_histograms_are_neighbours_added_up(bins: int) -> None:
    data = batches(3, signed=True, seed=5)
    statistics = observed(data)
    together = FIRST_BINS // bins
    padded = np.pad(statistics.histogram.magnitudes().numpy(), (0, -statistics.histogram.half % together))
    magnitudes = torch.from_numpy(padded.reshape(-1, together).sum(1))
    expected = threshold(magnitudes, 128, first=128, stride=1) * together * statistics.histogram.width
    low, high = activation_range(statistics, EntropyCalibrator(kind="entropy", bins=bins), SYMMETRIC)
    assert max(-float(low), float(high)) == min(expected, float(torch.cat(data).abs().max()))


def test_zeros_have_an_empty_range() -> None:
    for grid in (SYMMETRIC, UNSIGNED):
        assert activation_range(observed([torch.zeros(5)]), ENTROPY, grid) == (0.0, 0.0)


def test_bins_are_those_of_the_statistics() -> None:
    assert EntropyCalibrator(kind="entropy").bins == FIRST_BINS
    with pytest.raises(ValueError, match="allowed are 256, 512, 1024 and 2048"):
        EntropyCalibrator(kind="entropy", bins=1000)
