"""Tests that batches hold every row once per epoch in an order fixed by the seed, and of padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.config import BatchSize
from qexp.data.batches import collate, evaluation_batches, train_epochs
from qexp.data.tokenization.texts import TokenSplit

LENGTHS = st.lists(st.integers(2, 128), min_size=1, max_size=300).map(np.array)
SIZES = st.integers(1, 40)
SEEDS = st.integers(0, 2**31 - 1)


def train_batches(lengths: np.ndarray, *, batch_size: int, epochs: float, seed: int) -> list[np.ndarray]:
    made = train_epochs(lengths, size=BatchSize(batch_size), epochs=epochs, seed=seed)
    return [batch for epoch in made for batch in epoch]


def as_lists(batches: list[np.ndarray]) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, size=SIZES, epochs=st.integers(1, 3), seed=SEEDS)
def test_every_epoch_holds_every_row_once(lengths: np.ndarray, size: int, epochs: int, seed: int) -> None:
    batches = train_batches(lengths, batch_size=size, epochs=epochs, seed=seed)
    steps = math.ceil(len(lengths) / size)
    assert len(batches) == epochs * steps
    for epoch in range(epochs):
        of_epoch = batches[epoch * steps : (epoch + 1) * steps]
        assert sorted(np.concatenate(of_epoch)) == list(range(len(lengths)))
        short = [len(batch) for batch in of_epoch if len(batch) != size]
        assert short == ([len(lengths) % size] if len(lengths) % size else [])


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, size=SIZES, short=st.floats(0.01, 3), more=st.floats(0, 2), seed=SEEDS)
def test_longer_training_begins_like_a_shorter_one(
    lengths: np.ndarray, size: int, short: float, more: float, seed: int
) -> None:
    one = train_batches(lengths, batch_size=size, epochs=short, seed=seed)
    two = train_batches(lengths, batch_size=size, epochs=short + more, seed=seed)
    assert len(one) >= 1
    assert as_lists(one) == as_lists(two[: len(one)])


@pytest.mark.parametrize(("epochs", "steps"), [(0.1, 1), (0.25, 3), (1.1, 11), (0.3, 3), (3, 30), (2.01, 21)])
def test_fractions_of_an_epoch_are_rounded_up_to_steps(epochs: float, steps: int) -> None:
    assert len(train_batches(np.full(100, 7), batch_size=10, epochs=epochs, seed=1)) == steps


def test_order_depends_on_seed_and_epoch() -> None:
    lengths = np.arange(200) % 17 + 2
    first, second = (train_batches(lengths, batch_size=8, epochs=2, seed=seed) for seed in (1, 2))
    assert as_lists(first) != as_lists(second)
    assert as_lists(first[:25]) != as_lists(first[25:])


def test_batches_of_training_are_grouped_by_length_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, 6400)
    batches = train_batches(lengths, batch_size=32, epochs=1, seed=3)
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert padded < 1.06 * lengths.sum()
    means = np.array([lengths[batch].mean() for batch in batches])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, tokens=st.integers(8, 600), epochs=st.floats(0.2, 3), seed=SEEDS, data=st.data())
def test_batches_of_tokens_are_full_and_hold_every_row_once(
    lengths: np.ndarray, tokens: int, epochs: float, seed: int, data: st.DataObject
) -> None:
    """Of pairs, the longer side counts."""
    other = np.array(data.draw(st.lists(st.integers(2, 128), min_size=len(lengths), max_size=len(lengths))))
    widths, size = np.maximum(lengths, other), BatchSize(32, tokens)
    made = train_epochs(lengths, size=size, epochs=epochs, seed=seed, widths=widths)
    longer = train_epochs(lengths, size=size, epochs=epochs + 1, seed=seed, widths=widths)
    assert len(made) == math.ceil(epochs)
    for epoch, whole in zip(made, longer, strict=False):
        assert as_lists(epoch) == as_lists(whole[: len(epoch)])
        assert all(len(batch) * widths[batch].max() <= tokens or len(batch) == 1 for batch in epoch)
    first = longer[0] if epochs < 1 else made[0]
    assert sorted(np.concatenate(first)) == list(range(len(lengths)))


def test_batches_of_tokens_waste_little_and_come_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, 6400)
    first, second = train_epochs(lengths, size=BatchSize(1, 2048), epochs=2, seed=3)
    padded = np.array([lengths[batch].max() * len(batch) for batch in first])
    assert padded.sum() < 1.06 * lengths.sum() and padded.mean() > 0.92 * 2048
    means = np.array([lengths[batch].mean() for batch in first])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3
    assert {tuple(sorted(batch)) for batch in first}.isdisjoint(tuple(sorted(batch)) for batch in second)


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, size=SIZES)
def test_evaluation_holds_every_row_once_by_length(lengths: np.ndarray, size: int) -> None:
    batches = evaluation_batches(lengths, batch_size=size)
    rows = np.concatenate(batches)
    assert sorted(rows) == list(range(len(lengths)))
    assert (np.diff(lengths[rows]) >= 0).all()
    assert all(len(batch) == size for batch in batches[:-1])


def split_of(rows: list[list[int]], labels: np.ndarray) -> TokenSplit:
    flat = np.array([token for row in rows for token in row], np.int32)
    return TokenSplit(
        ids=flat,
        types=(flat % 2).astype(np.uint8),
        offsets=np.cumsum([0] + [len(row) for row in rows]),
        labels=labels,
        row_ids=np.arange(len(rows)),
    )


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 30000), min_size=1, max_size=9), min_size=1, max_size=8),
    data=st.data(),
)
def test_collate_pads_to_the_longest_row(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8))
    split = split_of(rows, np.arange(len(rows)))
    batch = collate(split, np.array(chosen), pad_id=99, pad_type=3)
    width = max(len(rows[row]) for row in chosen)
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    for place, row in enumerate(chosen):
        gap = width - len(rows[row])
        assert batch["input_ids"][place].tolist() == rows[row] + [99] * gap
        assert batch["attention_mask"][place].tolist() == [1] * len(rows[row]) + [0] * gap
        assert batch["token_type_ids"][place].tolist() == [token % 2 for token in rows[row]] + [3] * gap
    assert batch["labels"].tolist() == chosen


def test_collate_keeps_the_labels_of_a_regression() -> None:
    batch = collate(split_of([[1], [2, 3]], np.array([0.5, 1.5], np.float32)), np.array([1, 0]), pad_id=0)
    assert batch["labels"].dtype == torch.float32 and batch["labels"].tolist() == [1.5, 0.5]
