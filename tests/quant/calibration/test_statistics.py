"""Statistics of a calibration pass compared with numpy over all values at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qexp.errors import QuantizationError
from qexp.quant.calibration import histogram_cpu
from qexp.quant.calibration.histogram import FIRST_BINS, MOST_BINS, Histogram
from qexp.quant.calibration.histogram_cpu import KernelCounts
from qexp.quant.calibration.histogram_torch import TensorCounts
from qexp.quant.calibration.padding import Padding
from qexp.quant.calibration.statistics import CalibrationStatistics

Counts = KernelCounts | TensorCounts


def on_tensors() -> TensorCounts:
    """The way of devices, on the CPU."""
    return TensorCounts(torch.device("cpu"))


@pytest.fixture(params=["kernel", "tensors"])
def counts(request: pytest.FixtureRequest) -> Callable[[], Counts]:
    """What makes counts, in each of the two ways."""
    if request.param == "tensors":
        return on_tensors
    if histogram_cpu.kernel() is None:
        pytest.skip("no C compiler on this machine: only the way in torch can be tested")
    return KernelCounts


def collect(batches: list[Tensor], make: Callable[[], Counts]) -> Counts:
    """Counts over batches."""
    made = make()
    for batch in batches:
        made.add(batch, None, probabilities=False)
    return made


def histogram(batches: list[Tensor], make: Callable[[], Counts]) -> Histogram:
    """The histogram over batches."""
    return collect(batches, make).read()[2]


class Expected:
    """The documented rules, batch after batch, with numpy: where each value counts at first, then merges."""

    def __init__(self, batches: list[Tensor]) -> None:
        self.width, self.half, self.counts = 0.0, 1, {0: 0}
        for batch in batches:
            self._add(batch.numpy().reshape(-1))

    def _add(self, values: np.ndarray) -> None:  # type: ignore[type-arg]
        largest = float(np.abs(values).max())
        if largest and not self.width:
            self.width = max(largest / FIRST_BINS, float(np.finfo(np.float32).tiny))
        while largest > MOST_BINS // 2 * self.width:
            self.width, self.half = 2 * self.width, -(-self.half // 2)
            merged: dict[int, int] = {}
            for index, count in self.counts.items():
                merged[index // 2] = merged.get(index // 2, 0) + count
            self.counts = merged
        if largest:
            self.half = max(self.half, math.ceil(largest / self.width))
        places = np.floor(values / np.float32(self.width or 1)).clip(-self.half, self.half - 1)
        for index, count in zip(*np.unique(places, return_counts=True), strict=True):
            self.counts[int(index)] = self.counts.get(int(index), 0) + int(count)

    def check(self, found: Histogram) -> None:
        """Width, bins and every count agree."""
        assert (found.width, found.half) == (self.width, self.half)
        observed = found.counts.nonzero().flatten().tolist()
        expected = {index: count for index, count in self.counts.items() if count}
        assert {index - found.half: int(found.counts[index]) for index in observed} == expected


batches_of_sizes = st.lists(st.integers(-7, 7), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), batches_of_sizes)
def test_counts_are_those_of_the_documented_rules(seed: int, exponents: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(500, generator=generator) * 10.0**e for e in exponents]
    for batch in batches:  # values on edges of bins, ends of ranges, and zeros
        batch[:40] = (batch[:40] * 8 / batch.abs().max()).round() / 8 * batch.abs().max()
    for make in (on_tensors, KernelCounts) if histogram_cpu.kernel() else (on_tensors,):
        lows, highs, result = collect(batches, make).read()
        assert lows == [float(b.min()) for b in batches]
        assert highs == [float(b.max()) for b in batches]
        Expected(batches).check(result)
        assert result.counts.numel() <= MOST_BINS


def test_every_value_lies_between_the_edges_of_its_bin(counts: Callable[[], Counts]) -> None:
    batches = [torch.randn(5000, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    result = histogram(batches, counts)
    expected, _ = np.histogram(torch.cat(batches).double().numpy(), result.edges().numpy())
    # Only what float32 rounds onto an edge, and a batch's end on the edge of its time, may be next door.
    assert np.abs(np.cumsum(result.counts.numpy() - expected)).max() <= 2


def test_the_first_batch_sets_the_width_and_later_ones_add_bins(counts: Callable[[], Counts]) -> None:
    result = histogram([torch.tensor([-1.0, 2.0])], counts)
    assert (result.width, result.counts.numel()) == (2 / FIRST_BINS, 2 * FIRST_BINS)
    result = histogram([torch.tensor([-1.0, 2.0]), torch.tensor([3.0])], counts)
    assert (result.width, result.counts.numel()) == (2 / FIRST_BINS, 3 * FIRST_BINS)
    assert result.counts.nonzero().flatten().tolist() == [2048, 5119, 6143]


def test_far_larger_values_merge_bins(counts: Callable[[], Counts]) -> None:
    result = histogram([torch.ones(3), torch.tensor([1e6])], counts)
    assert result.counts.numel() <= MOST_BINS
    doublings = np.log2(result.width * FIRST_BINS)
    assert doublings == int(doublings)
    assert int(result.counts.sum()) == 4


@pytest.mark.parametrize("extreme", [1e-45, 1e-38, 3e38])
def test_the_ends_of_float32_have_bins(extreme: float, counts: Callable[[], Counts]) -> None:
    for batches in ([extreme], [1.0, extreme], [extreme, 1.0]):
        tensors = [torch.tensor([value, -value, 0.0]) for value in batches]
        Expected(tensors).check(histogram(tensors, counts))


def test_zeros_before_the_first_other_value_are_kept(counts: Callable[[], Counts]) -> None:
    result = histogram([torch.zeros(7), torch.tensor([1.0, -1.0])], counts)
    assert int(result.counts[result.half]) == 7
    lows, _, result = collect([torch.zeros(3)], counts).read()
    assert (lows, result.width, result.counts.tolist()) == ([0.0], 0.0, [0, 3])


def test_a_batch_without_entries_counts_for_nothing(counts: Callable[[], Counts]) -> None:
    made = collect([torch.ones(3), torch.ones(0)], counts)
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    made.add(torch.full((2, 4, 6), 9.0), Padding(nothing, nothing), probabilities=False)
    lows, highs, result = made.read()
    assert (lows, highs, int(result.counts.sum())) == ([1.0], [1.0], 3)
    assert collect([], counts).read()[0] == []


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_reported(bad: float, counts: Callable[[], Counts]) -> None:
    with pytest.raises(QuantizationError, match="a batch reaches from"):
        collect([torch.ones(5), torch.tensor([1.0, bad, 2.0])], counts).read()


def test_a_value_that_is_no_number_names_its_quantizer(monkeypatch: pytest.MonkeyPatch) -> None:
    if histogram_cpu.kernel() is not None:
        with pytest.raises(QuantizationError, match=r"calibration of layer\.0: a batch reaches"):
            CalibrationStatistics().add("layer.0", torch.tensor([1.0, float("nan")]))
    monkeypatch.setattr(histogram_cpu, "kernel", lambda: None)
    statistics = CalibrationStatistics()
    statistics.add("layer.0", torch.tensor([1.0, float("inf")]))
    with pytest.raises(QuantizationError, match=r"calibration of layer\.0: a batch reaches from 1.0 to inf"):
        statistics["layer.0"]


RIGHT = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
ANY = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0]])


def gathered(value: Tensor, mask: Tensor, *, probabilities: bool) -> Tensor:
    """Entries that belong to tokens, by boolean indexing."""
    keep = mask.bool()
    if value.dim() == 3:
        return value[keep].flatten()
    if not probabilities:
        return value.transpose(1, 2)[keep].flatten()
    return value.permute(0, 2, 3, 1)[keep[:, :, None] & keep[:, None, :]].flatten()


@pytest.mark.parametrize("mask", [RIGHT, ANY])
@pytest.mark.parametrize("shape", ["hidden", "strided", "heads", "heads view", "probs", "columns"])
def test_padding_is_left_out(shape: str, mask: Tensor, counts: Callable[[], Counts]) -> None:
    torch.manual_seed(0)
    value = {
        "hidden": lambda: torch.randn(3, 4, 6),
        "strided": lambda: torch.randn(3, 9, 6)[:, 1:5],
        "heads": lambda: torch.randn(3, 2, 4, 5),
        "heads view": lambda: torch.randn(3, 4, 2, 5).transpose(1, 2),
        "probs": lambda: torch.randn(3, 2, 4, 4),
        "columns": lambda: torch.randn(3, 6, 4).transpose(1, 2),
    }[shape]()
    made, probabilities = counts(), shape == "probs"
    padding = Padding.of(mask)
    made.add(value, padding, probabilities=probabilities)
    kept = gathered(value, mask, probabilities=probabilities)
    lows, highs, result = made.read()
    assert (lows, highs) == ([float(kept.min())], [float(kept.max())])
    Expected([kept]).check(result)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_both_ways_give_the_same_over_padded_batches(seed: int) -> None:
    if histogram_cpu.kernel() is None:
        pytest.skip("no C compiler on this machine: only the way in torch can be tested")
    generator = torch.Generator().manual_seed(seed)
    ways: list[Counts] = [KernelCounts(), on_tensors()]
    for _ in range(4):
        size = float(torch.rand((), generator=generator)) * 30
        padding = Padding.of((torch.rand(5, 60, generator=generator) < 0.7).long())
        batch = torch.randn(5, 3, 60, 60, generator=generator).softmax(-1) * size
        for way in ways:
            way.add(batch, padding, probabilities=True)
    kernel, tensors = (way.read() for way in ways)
    assert kernel[:2] == tensors[:2]
    assert kernel[2].width == tensors[2].width
    assert torch.equal(kernel[2].counts, tensors[2].counts)


def test_many_threads_count_what_one_counts() -> None:
    if histogram_cpu.kernel() is None:
        pytest.skip("no C compiler on this machine")
    batch, before = torch.randn(700, 301), torch.get_num_threads()
    try:
        torch.set_num_threads(5)
        result = histogram([batch], KernelCounts)
    finally:
        torch.set_num_threads(before)
    Expected([batch]).check(result)


def test_other_shapes_are_taken_whole(counts: Callable[[], Counts]) -> None:
    padding = Padding.of(RIGHT)
    for shape in ((3, 6), (7,), (), (2, 4, 6), (3, 2, 5, 4), (2, 3, 4, 5, 6)):
        made, value = counts(), torch.randn(shape)
        made.add(value, padding, probabilities=False)
        assert int(made.read()[2].counts.sum()) == value.numel()


@pytest.mark.parametrize("rows_padded", [True, False])
@pytest.mark.parametrize("columns_padded", [True, False])
def test_rows_and_columns_of_two_sequences_are_left_out_apart(
    rows_padded: bool, columns_padded: bool, counts: Callable[[], Counts]
) -> None:
    """Cross attention: five target rows of each head against seven source columns."""
    rows, columns = torch.ones(3, 5), torch.ones(3, 7)
    if rows_padded:
        rows[0, 3:], rows[2, 1:] = 0, 0
    if columns_padded:
        columns[1, 2:], columns[2, :3] = 0, 0
    value = torch.rand(3, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    kept = (rows[:, None, :, None] * columns[:, None, None, :]).expand(3, 2, 5, 7).bool()
    made = counts()
    made.add(value.masked_fill(~kept, 9.0), Padding.between(rows, columns), probabilities=True)
    lows, highs, result = made.read()
    assert (lows, highs) == ([float(value[kept].min())], [float(value[kept].max())])
    assert int(result.counts.sum()) == int(kept.sum())


def test_padding_is_none_where_nothing_is_padded() -> None:
    assert Padding.of(None) is None
    assert Padding.of(torch.ones(2, 4)) is None
    assert Padding.of(RIGHT) is not None


def test_half_precision_counts_as_float32(counts: Callable[[], Counts]) -> None:
    batch = torch.randn(300).bfloat16()
    Expected([batch.float()]).check(histogram([batch], counts))


def test_on_devices_nothing_is_read_while_batches_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    made, padding = on_tensors(), Padding.of(RIGHT)
    batches = [torch.randn(3, 2, 4, 4) * size for size in (0.0, 1.0, 3.0, 1e7, float("nan"))]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the host asked for a value on the device")

    with monkeypatch.context() as patch:
        for name in (
            "item",
            "tolist",
            "numpy",
            "cpu",
            "nonzero",
            "__bool__",
            "__float__",
            "__int__",
            "__index__",
        ):
            patch.setattr(Tensor, name, refuse)
        for batch in batches:
            made.add(batch, padding, probabilities=True)
            made.add(batch, None, probabilities=False)
    with pytest.raises(QuantizationError, match="nan"):
        made.read()


def test_a_file_holds_everything(tmp_path: Path) -> None:
    statistics = CalibrationStatistics()
    statistics.add("a.b:linear.input", torch.randn(10))
    statistics.add("a.b:linear.input", torch.randn(10) * 5)
    statistics.add("zeros", torch.zeros(4))
    statistics.save(tmp_path / "s.safetensors")
    loaded = CalibrationStatistics.load(tmp_path / "s.safetensors")
    assert set(loaded) == set(statistics)
    assert len(loaded) == len(statistics) == 2
    for name, value in statistics.items():
        assert (loaded[name].lows, loaded[name].highs) == (value.lows, value.highs)
        assert loaded[name].histogram.width == value.histogram.width
        assert torch.equal(loaded[name].histogram.counts, value.histogram.counts)
    with pytest.raises(QuantizationError, match="observe all batches again"):
        loaded.add("zeros", torch.zeros(4))


def test_what_was_looked_up_stays_as_it_was_when_more_is_added() -> None:
    statistics = CalibrationStatistics()
    statistics.add("x", torch.ones(4))
    before = statistics["x"]
    statistics.add("x", torch.full((4,), -0.5))
    assert (before.lows, int(before.histogram.counts.sum())) == ([1.0], 4)
    assert (statistics["x"].lows, int(statistics["x"].histogram.counts.sum())) == ([1.0, -0.5], 8)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(QuantizationError, match="calibrate again"):
        CalibrationStatistics.load(path)


def test_an_empty_histogram_has_no_width() -> None:
    assert Histogram().width == 0
    assert Histogram().magnitudes().tolist() == [0]
