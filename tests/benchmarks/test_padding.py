"""How full batches are."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.padding import drawn, filled, shares


def test_a_batch_is_padded_to_its_longest_row() -> None:
    lengths = np.array([1, 2, 3, 4])
    assert filled(lengths, [np.array([0, 3]), np.array([1, 2])]) == pytest.approx(100 * 10 / (8 + 6))
    assert filled(lengths, [np.array([each]) for each in range(4)]) == 100


def test_random_batches_have_every_row_once() -> None:
    batches = drawn(10, 4)
    assert list(map(len, batches)) == [4, 4, 2]
    assert sorted(np.concatenate(batches)) == list(range(10))


@pytest.mark.parametrize("training", [False, True])
def test_sorting_leaves_less_padding(training: bool) -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 640)
    random, own = shares(lengths, training)
    assert random < own <= 100
