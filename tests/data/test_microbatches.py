"""Tests that micro-batches hold every row once and that their shares add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qexp.config import Numerics
from qexp.data.microbatches import BatchSplit, MicroBatches


def _batch(rows: np.ndarray) -> dict[str, torch.Tensor]:
    return {"rows": torch.from_numpy(np.array(rows))}


def _sizes() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, 9), min_size=1, max_size=4)


@given(sizes=_sizes(), accumulate=st.integers(1, 4), devices=st.integers(1, 3))
def test_parts_hold_every_row_once_and_average_to_the_mean_of_the_batch(
    sizes: list[int], accumulate: int, devices: int
) -> None:
    starts = np.cumsum([0, *sizes[:-1]])
    batches = [np.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    values = torch.from_numpy(np.random.default_rng(0).normal(size=sum(sizes)))
    ranks = [
        list(MicroBatches(batches, _batch, BatchSplit(accumulate, devices, rank))) for rank in range(devices)
    ]
    assert all(len(parts) == accumulate * len(sizes) for parts in ranks)
    for step, rows in enumerate(batches):
        parts = [part for turns in ranks for part in turns[step * accumulate : (step + 1) * accumulate]]
        taken = [int(row) for part in parts if part["share"] > 0 for row in part["rows"]]
        assert sorted(taken) == rows.tolist()
        means = [float(values[part["rows"]].mean() * part["share"]) for part in parts]
        assert np.mean(means) == pytest.approx(float(values[rows].mean()), abs=1e-6)


def test_one_part_is_the_batch_as_it_is() -> None:
    batches = [np.array([5, 1, 3]), np.array([2])]
    whole = list(MicroBatches(batches, _batch))
    assert [part["rows"].tolist() for part in whole] == [[5, 1, 3], [2]]
    assert [float(part["share"]) for part in whole] == [1.0, 1.0]


def test_rows_of_a_step_are_the_mean_over_batches_of_different_sizes() -> None:
    batches = [np.arange(30), np.arange(4), np.arange(2)]
    assert MicroBatches(batches, _batch).rows_per_step * len(batches) == 36
    assert MicroBatches([], _batch).rows_per_step == 1


@given(taken=st.integers(0, 12))
def test_steps_go_on_after_the_parts_that_were_taken(taken: int) -> None:
    batches = [np.arange(7) + 7 * step for step in range(4)]
    whole = MicroBatches(batches, _batch, BatchSplit(3, 2, 1))
    first = iter(whole)
    for _ in range(taken):
        next(first)
    rest = MicroBatches(batches, _batch, BatchSplit(3, 2, 1))
    rest.load_state_dict(whole.state_dict())
    assert [part["rows"].tolist() for part in rest] == [part["rows"].tolist() for part in first]


def test_parts_of_a_process_follow_from_the_numerics() -> None:
    parts = BatchSplit.of(Numerics(accumulate=3, devices=2), rank=1)
    assert parts.count == 6
    assert [parts.number(turn) for turn in range(6)] == [1, 3, 5, 1, 3, 5]
