"""Arrays that are written to disk while they grow."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

Array = np.ndarray[Any, Any]


class GrowingArray:
    """A one-dimensional ``.npy`` file, written in parts; in the end, what ``np.save`` writes of the whole.

    The header holds the length, and numpy leaves room in it for any; it is written again at the end.
    Until then the file says that it is empty, so that one that was cut off never passes for whole.

    Args:
        path: The file; what was there is replaced.
        dtype: Type of the elements; parts are cast to it.
    """

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self.dtype = np.dtype(dtype)
        self.length = 0
        self._file = path.open("wb")
        self._begin = self._write_header()

    def append(self, part: Array) -> None:
        """Write the elements of ``part`` behind all earlier ones."""
        self._file.write(np.ascontiguousarray(part, self.dtype).data)
        self.length += len(part)

    def _write_header(self) -> int:
        """Write the header for today's length; returns where the elements begin."""
        self._file.seek(0)
        form = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(self._file, {**form, "shape": (self.length,)})
        return self._file.tell()

    def __enter__(self) -> Self:
        """The array itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the final length, if all went well, and close the file."""
        with self._file:
            if kind is None and self._write_header() != self._begin:
                raise AssertionError(f"numpy {np.__version__} leaves no room in a .npy header to grow")
