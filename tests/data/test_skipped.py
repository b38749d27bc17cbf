"""Rows that cannot be used are told with their share, and refused where they are many."""

from __future__ import annotations

import pytest

from qexp.data.skipped import FIRST_IDS, RowErrors, Skipped, notes_on_skipped
from qexp.errors import DataError

FIVE = (Skipped("no text", 3, ("a", "b", "c")), Skipped("no answer", 2, ("d", "e")))


def test_the_share_of_each_reason_is_told() -> None:
    sentences = notes_on_skipped(FIVE, 200, "train", 0.05)
    assert len(sentences) == 2
    assert all("train" in each and "200" in each for each in sentences)
    assert "1.5 %" in sentences[0] and "a, b, c" in sentences[0]


@pytest.mark.parametrize(("rows", "most"), [(99, 0.05), (5, 0.999), (1000, 0)])
def test_a_larger_share_is_refused_and_the_named_one_is_enough(rows: int, most: float) -> None:
    with pytest.raises(DataError, match=rf"data\.max_skipped={most:g};") as error:
        notes_on_skipped(FIVE, rows, "train", most)
    named = float(str(error.value).rpartition("=")[2])
    assert notes_on_skipped(FIVE, rows, "train", named)


@pytest.mark.parametrize(("rows", "said"), [(3, "100 %"), (9, "33 %"), (2000, "0.15 %")])
def test_shares_of_all_sizes_are_numbers_that_one_can_read(rows: int, said: str) -> None:
    assert f"({said} of {rows})" in notes_on_skipped(FIVE[:1], rows, "train", 1.0)[0]


def test_none_is_nothing_to_tell() -> None:
    assert notes_on_skipped((), 10, "train", 0.0) == ()


def test_the_first_ids_of_each_reason_are_kept() -> None:
    faults = RowErrors(strict=False)
    for row in range(2 * FIRST_IDS):
        faults.add(row, f"q{row}", "odd" if row % 2 else "even")
    assert [(each.reason, each.rows, each.first_ids[0]) for each in faults.skipped] == [
        ("even", FIRST_IDS, "q0"),
        ("odd", FIRST_IDS, "q1"),
    ]
