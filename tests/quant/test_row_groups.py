"""Tests that groups hold every row once and keep to the bytes of their device."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qexp.quant.row_groups import row_groups


@given(rows=st.integers(0, 40), row_bytes=st.integers(1, 30), limit=st.integers(0, 200))
def test_groups_hold_every_row_once_within_the_limit(rows: int, row_bytes: int, limit: int) -> None:
    values = torch.arange(rows)
    groups = [values[each] for each in row_groups(values, row_bytes, {"cpu": limit, "cuda": 1})]
    assert [int(row) for group in groups for row in group] == list(range(rows))
    assert all(len(group) * row_bytes <= limit or len(group) == 1 for group in groups)
    assert all(len(group) == max(1, limit // row_bytes) for group in groups[:-1])


@pytest.mark.parametrize(("device", "groups"), [("cpu", 6), ("meta", 2)])
def test_a_device_without_a_limit_of_its_own_has_that_of_a_gpu(device: str, groups: int) -> None:
    rows = torch.empty(6, 3, device=device)
    assert len(list(row_groups(rows, 10, {"cpu": 10, "cuda": 30}))) == groups
