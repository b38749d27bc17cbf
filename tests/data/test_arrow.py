"""Tests that Arrow conversions equal pyarrow's own, without importing pandas."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.data.arrow import from_numpy, from_texts, nulls, to_numpy

TYPES = [pa.int8(), pa.int32(), pa.int64(), pa.uint16(), pa.float32(), pa.float64()]
CHUNKS = st.lists(st.lists(st.integers(0, 100), max_size=5), max_size=4)


@settings(deadline=None)
@given(chunks=CHUNKS, kind=st.sampled_from(TYPES), start=st.integers(0, 5))
def test_numbers_are_those_of_pyarrow(chunks: list[list[int]], kind: pa.DataType, start: int) -> None:
    column = pa.chunked_array([pa.array(chunk, kind) for chunk in chunks], kind).slice(start)
    np.testing.assert_array_equal(to_numpy(column), column.to_numpy(), strict=True)


@pytest.mark.parametrize("kind", TYPES)
def test_numbers_come_back_as_a_column(kind: pa.DataType) -> None:
    numbers = np.arange(7).astype(kind.to_pandas_dtype())
    assert from_numpy(numbers).equals(pa.chunked_array([pa.array(numbers)]))
    assert from_numpy(numbers[::2]).to_pylist() == [0, 2, 4, 6]


def test_one_chunk_is_not_copied() -> None:
    numbers = np.arange(5)
    assert np.shares_memory(to_numpy(from_numpy(numbers)), numbers)


@settings(deadline=None)
@given(st.lists(st.lists(st.none() | st.integers(0, 3), max_size=4), max_size=3))
def test_nulls_are_those_of_pyarrow(chunks: list[list[int | None]]) -> None:
    column = pa.chunked_array([pa.array(chunk, pa.int64()) for chunk in chunks], pa.int64())
    assert nulls(column).tolist() == column.is_null().to_pylist()


def test_no_conversion_imports_pandas() -> None:
    code = (
        "import sys, numpy as np; from qexp.data.arrow import from_numpy, nulls, to_numpy;"
        "column = from_numpy(np.arange(4)); to_numpy(column), nulls(column); print('pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_are_those_of_pyarrow(texts: list[str]) -> None:
    assert from_texts(texts).equals(pa.chunked_array([pa.array(texts, pa.string())]))
