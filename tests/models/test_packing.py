"""Integers in words: bit by bit what the layout says, and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qexp.models.packing import PACKED_BITS, pack, unpack


@given(st.sampled_from(PACKED_BITS), st.integers(1, 4), st.integers(1, 37), st.integers(0, 2**32))
def test_words_hold_raised_integers_from_the_lowest_bits_on(
    bits: int, rows: int, columns: int, seed: int
) -> None:
    half = 2 ** (bits - 1)
    generator = torch.Generator().manual_seed(seed)
    integers = torch.randint(-half, half, (rows, columns), generator=generator, dtype=torch.int8)
    words = pack(integers, bits)
    assert words.dtype is torch.int32
    assert tuple(words.shape) == (rows, -(-columns * bits // 32))
    for row, line in zip(integers.tolist(), words.tolist(), strict=True):
        number = sum((value + half) << bits * place for place, value in enumerate(row))
        assert number == sum((word % 2**32) << 32 * place for place, word in enumerate(line))
    assert torch.equal(unpack(words, bits, columns), integers)


@pytest.mark.parametrize("bits", PACKED_BITS)
def test_the_ends_of_the_range_survive_in_the_highest_bits(bits: int) -> None:
    half, count = 2 ** (bits - 1), 32 // bits
    integers = torch.tensor([[-half] * (count - 1) + [half - 1]], dtype=torch.int8)
    assert torch.equal(unpack(pack(integers, bits), bits, count), integers)
