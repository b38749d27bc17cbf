"""Statistics of a calibration pass against numpy over all values at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.errors import QuantizationError
from qexp.quant.statistics import FIRST_BINS, MOST_BINS, Histogram, Statistics, ValueStatistics, select


def collect(batches: list[torch.Tensor]) -> ValueStatistics:
    """Statistics over batches."""
    statistics = ValueStatistics()
    for batch in batches:
        statistics.add(batch)
    return statistics


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.lists(st.integers(-6, 6), min_size=1, max_size=5))
def test_every_value_lies_in_its_bin(seed: int, exponents: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(500, generator=generator) * 10.0**e for e in exponents]
    statistics = collect(batches)
    histogram, values = statistics.histogram, torch.cat(batches)
    assert statistics.lows == [float(b.min()) for b in batches]
    assert statistics.highs == [float(b.max()) for b in batches]
    assert histogram.counts.numel() <= MOST_BINS
    edges = histogram.edges().numpy()
    expected, _ = np.histogram(values.double().numpy(), edges)
    assert int(histogram.counts.sum()) == len(values)
    # A batch's largest value counts in the last bin of its time, of which it is the upper edge.
    shifted = np.abs(np.cumsum(histogram.counts.numpy() - expected))
    assert shifted.max() <= 1
    assert (shifted > 0).sum() <= len(batches)


def test_the_first_batch_sets_the_width_and_later_ones_add_bins() -> None:
    histogram = collect([torch.tensor([-1.0, 2.0])]).histogram
    assert histogram.width == 2 / FIRST_BINS
    assert histogram.counts.numel() == 2 * FIRST_BINS
    histogram = collect([torch.tensor([-1.0, 2.0]), torch.tensor([3.0])]).histogram
    assert (histogram.width, histogram.counts.numel()) == (2 / FIRST_BINS, 3 * FIRST_BINS)


def test_far_larger_values_merge_bins() -> None:
    histogram = collect([torch.ones(3), torch.tensor([1e6])]).histogram
    assert histogram.counts.numel() <= MOST_BINS
    doublings = np.log2(histogram.width * FIRST_BINS)
    assert doublings == int(doublings)
    assert int(histogram.counts.sum()) == 4


def test_zeros_before_the_first_other_value_are_kept() -> None:
    statistics = collect([torch.zeros(7), torch.tensor([1.0, -1.0])])
    counts = statistics.histogram.counts
    assert int(counts[counts.numel() // 2]) == 7
    assert collect([torch.zeros(3)]).histogram.width == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_names_its_quantizer(bad: float) -> None:
    with pytest.raises(QuantizationError, match=r"calibration of layer\.0"):
        Statistics().add("layer.0", torch.tensor([1.0, bad]))


def test_a_file_holds_everything(tmp_path: Path) -> None:
    statistics = Statistics()
    statistics.add("a.b:linear.input", torch.randn(10))
    statistics.add("a.b:linear.input", torch.randn(10) * 5)
    statistics.add("zeros", torch.zeros(4))
    statistics.save(tmp_path / "s.safetensors")
    loaded = Statistics.load(tmp_path / "s.safetensors")
    assert set(loaded) == set(statistics)
    for name, value in statistics.items():
        assert (loaded[name].lows, loaded[name].highs) == (value.lows, value.highs)
        assert loaded[name].histogram.width == value.histogram.width
        assert torch.equal(loaded[name].histogram.counts, value.histogram.counts)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(QuantizationError, match="calibrate again"):
        Statistics.load(path)


MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def test_padding_is_left_out() -> None:
    hidden = torch.randn(2, 4, 6)
    assert torch.equal(select(hidden, MASK), torch.cat([hidden[0, :3].flatten(), hidden[1, :2].flatten()]))
    heads = torch.randn(2, 3, 4, 4)
    kept = select(heads, MASK).sort().values
    expected = torch.cat([heads[0, :, :3].flatten(), heads[1, :, :2].flatten()]).sort().values
    assert torch.equal(kept, expected)
    kept = select(heads, MASK, probabilities=True).sort().values
    expected = torch.cat([heads[0, :, :3, :3].flatten(), heads[1, :, :2, :2].flatten()]).sort().values
    assert torch.equal(kept, expected)
    pooled = torch.randn(2, 6)
    assert torch.equal(select(pooled, MASK), pooled.flatten())
    assert torch.equal(select(hidden, None), hidden.flatten())
    assert torch.equal(select(hidden, torch.ones(2, 4)), hidden.flatten())


def test_an_empty_histogram_has_no_width() -> None:
    assert Histogram().width == 0
