"""Atomic writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qexp.artifacts.disk import write_whole
from qexp.errors import StoreError


def test_a_file_is_replaced_whole_and_readable_as_the_umask_says(tmp_path: Path) -> None:
    file = tmp_path / "engines" / "a.engine"
    before = os.umask(0o027)
    try:
        write_whole(file, b"1")
        write_whole(file, b"2")
    finally:
        os.umask(before)
    assert [each.name for each in file.parent.iterdir()] == ["a.engine"]
    assert file.read_bytes() == b"2"
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.onnx"
    write_whole(file, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match=r"cannot write below .*no space left"):
        write_whole(file, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["a.onnx"]
    assert file.read_bytes() == b"old"


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("")
    with pytest.raises(StoreError, match="cannot write below"):
        write_whole(tmp_path / "engines" / "a.engine", b"1")
