"""Extremes of each dimension of an activation, compared with numpy over all tokens at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from qexp.quant.calibration import histogram_cpu
from qexp.quant.calibration.padding import Padding
from qexp.quant.calibration.statistics import CalibrationStatistics


@pytest.fixture(params=["kernel", "tensors"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two ways: the kernel of the CPU, and tensor operations as on a device."""
    if request.param == "tensors":
        monkeypatch.setattr(histogram_cpu, "fits", lambda value: False)
    elif histogram_cpu.kernel() is None:
        pytest.skip("no C compiler on this machine: only the way in torch can be tested")


@pytest.fixture(params=[1, 3])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def collected(*batches: tuple[Tensor, Tensor | None]) -> Tensor | None:
    statistics = CalibrationStatistics()
    for value, mask in batches:
        statistics.add("x", value, Padding.of(mask), extremes=True)
    return statistics["x"].extremes


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * torch.exp(torch.randn(shape[-1], generator=generator))


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("size", [1, 7, 384, 20_000])
def test_they_are_those_of_all_tokens_that_count(size: int) -> None:
    batches, kept = [], []
    for seed, (rows, length) in enumerate([(4, 9), (2, 5), (3, 30)]):
        value, mask = drawn(rows, length, size, seed=seed), torch.ones(rows, length)
        mask[0, length // 2 :] = 0
        mask[-1, 0] = 0
        value[mask == 0] = 1e6 * (-1) ** seed
        batches.append((value if seed else value.transpose(0, 1).contiguous().transpose(0, 1), mask))
        kept.append(value[mask == 1])
    found, everything = collected(*batches), torch.cat(kept).numpy()
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), [everything.min(0), everything.max(0)])


def test_a_value_of_two_axes_has_no_padding() -> None:
    first, second = drawn(5, 12), drawn(3, 12, seed=1)
    found, both = collected((first, torch.ones(5, 4)), (second, None)), torch.cat([first, second])
    assert found is not None
    torch.testing.assert_close(found, torch.stack(torch.aminmax(both, dim=0)), rtol=0, atol=0)


def test_a_batch_of_padding_changes_nothing() -> None:
    value = drawn(2, 3, 4)
    found = collected((value, None), (value * 100, torch.zeros(2, 3)))
    assert found is not None
    assert torch.equal(found, torch.stack(torch.aminmax(value.flatten(0, 1), dim=0)))
    assert collected((value, torch.zeros(2, 3))) is None


@pytest.mark.parametrize(
    "batches",
    [[drawn(2, 3, 4, 5)], [drawn(7)], [drawn(2, 3, 4), drawn(2, 3, 5)], [drawn(2, 3, 4), drawn(2, 1, 3, 4)]],
    ids=["heads", "one axis", "columns of keys", "changing axes"],
)
def test_what_is_no_dimension_has_none(batches: list[Tensor]) -> None:
    assert collected(*((value, None) for value in batches)) is None


def test_the_statistics_of_the_whole_value_are_the_same_with_and_without(tmp_path: Path) -> None:
    value, files = drawn(4, 20, 48), []
    for extremes in (True, False):
        statistics = CalibrationStatistics()
        for factor in (1.0, 3.0):  # the second batch needs wider bins
            statistics.add("x", factor * value, extremes=extremes)
        statistics.save(tmp_path / "s")
        files.append(CalibrationStatistics.load(tmp_path / "s")["x"])
    assert files[0].lows == files[1].lows and files[0].highs == files[1].highs
    assert torch.equal(files[0].histogram.counts, files[1].histogram.counts)
    assert files[1].extremes is None and files[0].extremes is not None
    assert torch.equal(files[0].extremes, torch.stack(torch.aminmax(3 * value.flatten(0, 1), dim=0)))
