"""Rows of different lengths in batches."""

from __future__ import annotations

import numpy as np

from benchmarks.ragged import ORDERS, ragged
from benchmarks.shapes import SHAPES


def test_rows_of_different_lengths_are_the_same_ones_in_each_order() -> None:
    found = ragged(SHAPES["tiny"], 64)
    assert tuple(found) == ORDERS
    lengths = {
        order: np.sort(np.concatenate([each["attention_mask"].sum(1) for each in batches]))
        for order, (batches, _) in found.items()
    }
    assert lengths["sorted"].min() >= 20 and lengths["sorted"].max() <= 60
    for order in ORDERS:
        assert np.array_equal(lengths[order], lengths["sorted"])
        assert all(each["input_ids"].shape == each["attention_mask"].shape for each in found[order][0])
    real = [share for _, share in found.values()]
    assert real[0] <= real[1] < real[2] <= 100
