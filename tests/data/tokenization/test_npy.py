"""Tests that growing files match numpy's byte for byte and never look complete before they are."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.data.tokenization.npy import GrowingArray

PARTS = st.lists(st.lists(st.integers(0, 200), max_size=30), max_size=6)


@settings(max_examples=50, deadline=None)
@given(parts=PARTS, dtype=st.sampled_from([np.int32, np.uint8, np.int64, np.float32]))
def test_parts_make_the_file_that_numpy_writes(parts: list[list[int]], dtype: type[np.generic]) -> None:
    with TemporaryDirectory() as folder:
        grown, saved = Path(folder) / "grown.npy", Path(folder) / "saved.npy"
        with GrowingArray(grown, dtype) as array:
            for part in parts:
                array.append(np.array(part, np.int64))
        np.save(saved, np.array([value for part in parts for value in part], dtype))
        assert grown.read_bytes() == saved.read_bytes()


def test_the_header_has_room_for_any_length(tmp_path: Path) -> None:
    with GrowingArray(tmp_path / "long.npy", np.uint8) as array:
        begin = array._begin
        array.length = 10**18
        assert array._write_header() == begin
        array.length = 0


def test_a_file_that_was_cut_off_does_not_pass_for_whole(tmp_path: Path) -> None:
    def begin() -> None:
        with GrowingArray(tmp_path / "part.npy", np.int32) as array:
            array.append(np.arange(1000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert np.load(tmp_path / "part.npy").shape == (0,)


def test_a_slice_with_gaps_is_written_as_its_elements(tmp_path: Path) -> None:
    with GrowingArray(tmp_path / "a.npy", np.int32) as array:
        array.append(np.arange(10, dtype=np.int32)[::3])
    assert np.load(tmp_path / "a.npy").tolist() == [0, 3, 6, 9]
