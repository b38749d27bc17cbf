"""Reader of folders that ``Dataset.save_to_disk`` wrote."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.formats.request import Request
from qexp.errors import DataError

STATE = "state.json"
"""File that only the folder of a saved ``Dataset`` has; a ``DatasetDict`` has one such folder per split."""


def is_saved(path: Path) -> bool:
    """Return whether a folder is a saved ``Dataset``."""
    return (path / STATE).is_file()


def read_saved(path: Path, request: Request) -> pa.Table:
    """Read a folder with ``datasets``, which applies the indices of a filtered or shuffled data set."""
    import datasets

    try:
        rows = datasets.load_from_disk(str(path))
        return rows.with_format("arrow")[:]
    except Exception as error:  # datasets, fsspec and Arrow share no base class
        raise DataError(
            f"{path}: not a readable folder of save_to_disk: {type(error).__name__}: {error}; save it again"
        ) from error
