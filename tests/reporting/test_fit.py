"""Tables that fit the columns of a terminal."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexp.reporting.fit import SHORTEST, fitted, shortened, width_of
from qexp.reporting.table import Table

TEXT = st.text("abcdef-/.", max_size=30)


@given(TEXT, st.integers(1, 40))
def test_a_shortened_name_keeps_both_ends(name: str, width: int) -> None:
    short = shortened(name, width)
    assert len(short) == min(len(name), width)
    if len(name) <= width:
        assert short == name
    elif width >= 3:
        assert short[0] == name[0] and short[-1] == name[-1] and "…" in short


@st.composite
def tables(draw: st.DrawFn) -> Table:
    names, others = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    columns = tuple(f"column {index}" for index in range(names + others))
    row = st.tuples(*[TEXT] * names, *[st.text("0123456789.", min_size=1, max_size=12)] * others)
    rows = tuple(draw(st.lists(row, min_size=1, max_size=4)))
    return Table("t", columns, rows, caption=("above",), notes=("below",), labels=names)


@given(tables(), st.sampled_from([80, 100, 140]))
def test_no_part_is_wider_and_no_number_is_lost_or_cut(table: Table, width: int) -> None:
    parts = fitted(table, width)
    assert all(width_of(part) <= width for part in parts)
    others = [*chain.from_iterable(part.columns[part.labels :] for part in parts)]
    assert others == [*table.columns[table.labels :]]
    for number, row in enumerate(table.rows):
        cells = [*chain.from_iterable(part.rows[number][part.labels :] for part in parts)]
        assert cells == [*row[table.labels :]]
    assert "above" in parts[0].caption and parts[-1].notes == ("below",)
    assert len({part.rows[0][: part.labels] for part in parts}) == 1, "names are repeated"


def test_what_fits_is_left_alone() -> None:
    table = Table("t", ("name", "x"), (("a" * 40, "1"),))
    assert fitted(table, 80) == [table]


def test_units_go_into_the_caption_where_that_is_enough() -> None:
    table = Table("t", ("name", "size (MiB)", "p50 (ms)"), (("a", "1.00", "2.00"),))
    (part,) = fitted(table, 16)
    assert part.columns == ("name", "size", "p50")
    assert part.caption == ("Units: size in MiB, p50 in ms.",)
    assert part.rows == table.rows
    parts = fitted(replace(table, rows=(("a", "1" * 10, "2" * 10),)), 20)
    assert [each.columns for each in parts] == [("name", "size (MiB)"), ("name", "p50 (ms)")]


def test_names_that_all_rows_share_go_into_the_caption() -> None:
    rows = tuple(("mrpc", "m" * 60, quant, "1" * 20) for quant in ("w8a8", "w4a8"))
    (part,) = fitted(Table("t", ("task", "model", "quant", "x"), rows, labels=3), 60)
    assert part.columns == ("quant", "x")
    assert part.caption == (f"All rows: task mrpc, model {'m' * 60}.",)


def test_reasons_become_notes_before_the_table_is_divided() -> None:
    rows = (("a", "1", "x" * 200), ("b", "2", ""), ("c", "3", "x" * 200), ("d", "4", "y"))
    (part,) = fitted(Table("t", ("engine", "ms", "why"), rows, notes=("below",), prose="why"), 80)
    assert [row[2] for row in part.rows] == ["[1]", "", "[1]", "[2]"]
    assert part.notes == (f"[1] {'x' * 200}", "[2] y", "below")


def test_rows_of_equal_names_are_numbered_where_the_table_is_divided() -> None:
    rows = tuple(("m", *["1234567890"] * 12) for _ in range(2))
    parts = fitted(Table("t", ("model", *map(str, range(12))), rows), 80)
    assert len(parts) == 2
    assert [[row[0] for row in part.rows] for part in parts] == [["1", "2"]] * 2


@pytest.mark.parametrize("width", [20, 40])
def test_a_long_name_keeps_at_least_its_ends(width: int) -> None:
    table = Table("t", ("model", "x"), (("n" * 100, "1"), ("o" * 100, "2")))
    (part,) = fitted(table, width)
    assert len(part.rows[0][0]) >= SHORTEST
