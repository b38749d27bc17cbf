"""Writers of predictions, part by part in order: files of three formats, or standard output."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from qexp.console import write_out
from qexp.errors import DataError, StoreError


class Writer(ABC):
    """Base class of writers that append tables with the same columns to a file or to standard output."""

    @abstractmethod
    def write(self, table: pa.Table) -> bool:
        """Append rows and return whether the output still has a reader (false for a closed pipe)."""

    def close(self) -> None:  # noqa: B027 - standard output stays open
        """Finish the file."""


class JsonLines(Writer):
    """Writer of JSON lines: one object per line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, table: pa.Table) -> bool:
        """Append one line per row; numbers that are not finite become null."""
        lines = (json.dumps(_finite(row), ensure_ascii=False, default=str) for row in table.to_pylist())
        return write_out(self._stream, "".join(f"{line}\n" for line in lines))

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._stream is not sys.stdout:
            self._stream.close()


BETWEEN = ";"
"""What stands between the texts of a list in one value of a CSV file."""


def _joined(value: Any) -> Any:
    texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return BETWEEN.join(value) if texts else value


class CommaSeparated(Writer):
    """Writer of comma-separated values with a header; struct fields become columns such as ``a.b``.

    Lists of texts become one text, with :data:`BETWEEN` between them.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._path, self._writer = path, csv.writer(self._file)
        self._names: list[str] = []

    def write(self, table: pa.Table) -> bool:
        """Append one line per row.

        Raises:
            DataError: The columns differ from those of the first part.
        """
        flat = table.flatten()
        if not self._names:
            self._names = flat.column_names
            self._writer.writerow(self._names)
        if flat.column_names != self._names:
            raise _changed(self._path, f"from {self._names} to {flat.column_names}")
        self._writer.writerows(map(_joined, row.values()) for row in flat.to_pylist())
        self._file.flush()
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Parquet(Writer):
    """Writer of a parquet file; the first part determines the column types."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> bool:
        """Append a row group.

        Raises:
            DataError: The part cannot be cast to the types of the first part.
        """
        if self._file is None:
            self._file = pq.ParquetWriter(self._path, table.schema)
        try:
            self._file.write_table(table.cast(self._file.schema))
        except (pa.ArrowException, ValueError) as error:
            raise _changed(self._path, str(error)) from error
        return True

    def close(self) -> None:
        """Write the footer."""
        if self._file is not None:
            self._file.close()


WRITERS: dict[str, Callable[[Path], Writer]] = {
    ".jsonl": lambda path: JsonLines(path.open("w", encoding="utf-8")),
    ".csv": CommaSeparated,
    ".parquet": Parquet,
}
"""Writer of each file format, by suffix."""


class Output:
    """Output of predictions; a file is named ``….partial.…`` until it is complete.

    Args:
        path: Path of the file; None for standard output.
    """

    def __init__(self, path: Path | None) -> None:
        self.rows = 0
        self._path = path
        # Bound here, because rich replaces sys.stdout while a progress bar is drawn.
        self._writer: Writer = JsonLines(sys.stdout) if path is None else self._opened(path)

    def write(self, table: pa.Table) -> bool:
        """Append predictions and return whether the output still has a reader.

        Raises:
            StoreError: The file cannot be written.
            DataError: The columns or their types differ from those of the first part.
        """
        try:
            has_reader = self._writer.write(table)
        except OSError as error:
            raise self._cannot(error) from error
        self.rows += table.num_rows
        return has_reader

    def finish(self) -> None:
        """Close the output and rename a complete file to its final name.

        Raises:
            StoreError: The file cannot be written or renamed.
        """
        try:
            self._writer.close()
            if self._path is not None:
                os.replace(self.partial, self._path)
        except OSError as error:
            raise self._cannot(error) from error

    def stop(self) -> str:
        """Close an incomplete output and return a sentence on where its predictions are."""
        rows = f"the predictions of the first {self.rows} rows" if self.rows else "no predictions"
        self._writer.close()
        if self._path is None:
            return f"{rows} were written"
        if self.rows:
            return f"{self.partial} holds {rows}"
        self.partial.unlink(missing_ok=True)
        return f"{rows} were written, and there is no file of them"

    @property
    def partial(self) -> Path:
        """Path of the file until it is complete."""
        assert self._path is not None
        return self._path.with_suffix(f".partial{self._path.suffix}")

    def _opened(self, path: Path) -> Writer:
        if path.suffix not in WRITERS:
            raise DataError(
                f"--output {path}: {path.suffix or 'no ending'} is no kind of predictions; allowed are "
                f"{', '.join(WRITERS)}"
            )
        try:
            return WRITERS[path.suffix](self.partial)
        except OSError as error:
            raise self._cannot(error) from error

    def _cannot(self, error: OSError) -> StoreError:
        return StoreError(
            f"--output {self._path}: {error.strerror or error}; make room, or name a file in a folder that "
            "is there and may be written"
        )


def _changed(path: Path, how: str) -> DataError:
    return DataError(
        f"{path.name}: columns that are kept change on the way ({how}); write jsonl, or leave --keep out"
    )


def _finite(value: Any) -> Any:
    """Replace numbers that JSON cannot represent by None, also in dictionaries and lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value
