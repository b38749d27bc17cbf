"""Arrays that are appended to on disk."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

Array = np.ndarray[Any, Any]


class GrowingArray:
    """A one-dimensional ``.npy`` file that is written in parts, with the same result as ``np.save``.

    The header holds the length, for which numpy reserves space; it is rewritten on exit. Until then it states
    length 0, so that a truncated file is never mistaken for a complete one.

    Args:
        path: Path of the file; an existing file is overwritten.
        dtype: Type of the elements; parts are cast to it.
    """

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self.dtype = np.dtype(dtype)
        self.length = 0
        self._file = path.open("wb")
        self._begin = self._write_header()

    def append(self, part: Array) -> None:
        """Append the elements of ``part``, [elements]."""
        self._file.write(np.ascontiguousarray(part, self.dtype).data)
        self.length += len(part)

    def _write_header(self) -> int:
        """Write the header for the current length and return the offset of the first element."""
        self._file.seek(0)
        form = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self._file, {**form, "shape": (self.length,)})
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the final length, unless an error occurred, and close the file."""
        with self._file:
            if kind is None and self._write_header() != self._begin:
                raise AssertionError(f"numpy {np.__version__} leaves no room in a .npy header to grow")
