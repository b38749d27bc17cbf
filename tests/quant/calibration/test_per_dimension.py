"""Statistics of dimensions compared with numpy, and of groups compared with those of the whole value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qexp.config import (
    AnyCalibrator,
    EmaCalibrator,
    EntropyCalibrator,
    MaxCalibrator,
    MseCalibrator,
    PercentileCalibrator,
    SqnrCalibrator,
)
from qexp.errors import QuantizationError
from qexp.quant.calibration.estimators import activation_range
from qexp.quant.calibration.padding import Padding
from qexp.quant.calibration.per_dimension import HALF, DimensionStatistics
from qexp.quant.calibration.statistics import CalibrationStatistics, ValueStatistics
from qexp.quant.grid import Grid

GRID = Grid(8, signed=False, symmetric=False)


def observed(data: list[Tensor], mask: Tensor | None = None) -> ValueStatistics:
    """Statistics over batches [B, T, H]."""
    statistics = CalibrationStatistics()
    for batch in data:
        statistics.add("value", batch, Padding.of(mask), dimensions=True)
    return statistics["value"]


def per_dimension(data: list[Tensor], mask: Tensor | None = None) -> DimensionStatistics:
    """Those of each dimension."""
    result = observed(data, mask).dimensions
    assert result is not None
    return result


def batches(seed: int, scales: list[float], count: int = 3) -> list[Tensor]:
    """Batches of dimensions with these scales; later batches reach further."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(4, 50, len(scales), generator=generator) * torch.tensor(scales) * 3**k
        for k in range(count)
    ]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000),
    st.lists(st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 7.0, 1e4]), min_size=1, max_size=5),
)
def test_every_dimension_is_counted_as_numpy_counts_it(seed: int, scales: list[float]) -> None:
    data = batches(seed, scales)
    data[-1][0, 0] = 2.0 ** torch.randint(-3, 3, (len(scales),))  # on edges of bins, and of all bins
    result, values = per_dimension(data), torch.cat(data).flatten(0, 1).double().numpy()
    assert np.array_equal(result.lows.numpy(), [batch.amin((0, 1)).numpy() for batch in data])
    assert np.array_equal(result.highs.numpy(), [batch.amax((0, 1)).numpy() for batch in data])
    np.testing.assert_allclose(result.means, values.mean(0), rtol=1e-6, atol=1e-6 * np.abs(values).max())
    assert int(result.tokens) == len(values)
    for index, column in enumerate(values.T):
        largest, width = np.abs(column).max(), float(result.widths[index])
        assert HALF / 2 * width < largest <= HALF * width  # no wider than they must be
        places = np.floor(column / width).clip(-HALF, HALF - 1).astype(int) + HALF
        assert np.array_equal(result.counts[index].numpy(), np.bincount(places, minlength=2 * HALF))


def test_padding_and_batches_of_nothing_else_are_left_out() -> None:
    data = batches(0, [1.0, 5.0])
    mask = torch.ones(4, 50, dtype=torch.int64)
    mask[1, 20:] = mask[3, :] = 0
    result = per_dimension(data, mask)
    expected = per_dimension([batch[mask != 0][None] for batch in data])
    for name, tensor in expected.tensors().items():
        torch.testing.assert_close(result.tensors()[name], tensor)
    statistics = CalibrationStatistics()
    statistics.add("value", data[0], dimensions=True)
    statistics.add("value", data[1], Padding(torch.zeros(4, 50, dtype=torch.bool), None), dimensions=True)
    each = statistics["value"].dimensions
    assert each is not None and len(each.lows) == 1 and int(each.tokens) == 200


def test_a_group_of_all_dimensions_is_the_value_but_for_the_bins() -> None:
    data = batches(1, [1.0, 0.01, 30.0, 0.0])
    whole = observed(data)
    group = whole.group(torch.arange(4))
    assert (group.lows, group.highs) == (whole.lows, whole.highs)
    values = torch.cat(data).double().numpy()
    histogram = group.histogram
    places = np.floor(values / histogram.width).clip(-HALF, HALF - 1).astype(int) + HALF
    assert np.array_equal(histogram.counts.numpy(), np.bincount(places.ravel(), minlength=2 * HALF))
    zeros = whole.group(torch.tensor([3]))
    assert (zeros.lows, zeros.histogram.width) == ([0.0] * 3, 0.0)


@pytest.mark.parametrize(
    "calibrator",
    [
        MaxCalibrator(kind="max"),
        EmaCalibrator(kind="ema"),
        PercentileCalibrator(kind="percentile", percentile=99.0),
        MseCalibrator(kind="mse"),
        SqnrCalibrator(kind="sqnr"),
        EntropyCalibrator(kind="entropy"),
    ],
)
def test_every_calibrator_works_on_a_group(calibrator: AnyCalibrator) -> None:
    """As on a value that has these dimensions alone, but for bins that are up to 16 times wider.

    Extremes are equal, a percentile is one bin apart. How far the other ranges are apart shows in what they
    are for: the squared error is within a tenth, but of entropy, which sees coarser bins.
    """
    data, members = batches(2, [1.0, 9.0, 0.3, 2.0], count=2), torch.tensor([0, 3])
    group = observed(data).group(members)
    result = activation_range(group, calibrator, GRID)
    expected = activation_range(observed([batch[..., members] for batch in data]), calibrator, GRID)
    width = group.histogram.width
    if isinstance(calibrator, MaxCalibrator | EmaCalibrator):
        assert result == expected
    elif isinstance(calibrator, PercentileCalibrator):
        torch.testing.assert_close(torch.stack(result), torch.stack(expected), rtol=0, atol=1.1 * width)
    else:
        torch.testing.assert_close(torch.stack(result), torch.stack(expected), rtol=0.35, atol=0)


def test_files_carry_them(tmp_path: Path) -> None:
    statistics = CalibrationStatistics()
    for batch in batches(3, [1.0, 4.0]):
        statistics.add("encoder:linear.input", batch, dimensions=True)
        statistics.add("encoder:matmul.query", batch[:, None], dimensions=True)  # heads have no dimensions
        statistics.add("pooler:linear.input", batch)
    statistics.save(tmp_path / "statistics")
    loaded = CalibrationStatistics.load(tmp_path / "statistics")
    assert list(loaded) and loaded["pooler:linear.input"].dimensions is None
    assert loaded["encoder:matmul.query"].dimensions is None
    before, after = statistics["encoder:linear.input"].dimensions, loaded["encoder:linear.input"].dimensions
    assert before is not None and after is not None
    assert after.size == 2 and after.counts.dtype == torch.int64
    for name, tensor in before.tensors().items():
        assert torch.equal(after.tensors()[name], tensor)


def test_a_group_needs_them() -> None:
    statistics = CalibrationStatistics()
    statistics.add("value", torch.ones(1, 2, 3))
    with pytest.raises(QuantizationError, match="observe again with dimensions=True"):
        statistics["value"].group(torch.arange(2))
