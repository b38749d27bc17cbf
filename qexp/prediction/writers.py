"""Where predictions go: a file of one of three kinds, or standard output; part by part, in their order."""

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
    """A file, or standard output, that takes tables of the same columns."""

    @abstractmethod
    def write(self, table: pa.Table) -> bool:
        """Write rows behind the earlier ones; whether somebody still reads them."""

    def close(self) -> None:  # noqa: B027 - standard output stays open
        """Finish the file."""


class JsonLines(Writer):
    """An object in each line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, table: pa.Table) -> bool:
        """One line for each row."""
        lines = (json.dumps(_finite(row), ensure_ascii=False, default=str) for row in table.to_pylist())
        return write_out(self._stream, "".join(f"{line}\n" for line in lines))

    def close(self) -> None:
        """Close a file; the process's own output stays open."""
        if self._stream is not sys.stdout:
            self._stream.close()


class CommaSeparated(Writer):
    """Values under a line of names; parts of a value have columns of their own, such as ``a.b``."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._path, self._writer = path, csv.writer(self._file)
        self._names: list[str] = []

    def write(self, table: pa.Table) -> bool:
        """One line for each row."""
        flat = table.flatten()
        if not self._names:
            self._names = flat.column_names
            self._writer.writerow(self._names)
        if flat.column_names != self._names:
            raise _changed(self._path, f"from {self._names} to {flat.column_names}")
        self._writer.writerows(row.values() for row in flat.to_pylist())
        self._file.flush()
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Parquet(Writer):
    """A table; the types are those of the first part."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> bool:
        """A row group for each part."""
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
"""Kinds of files, by how their names end."""


class Output:
    """Predictions as they come. A file has its name when all are in it, and until then ``….partial.…``.

    Args:
        path: The file; None is standard output.
    """

    def __init__(self, path: Path | None) -> None:
        self.rows = 0
        self._path = path
        # Taken now: rich puts a stream of its own in the place of the process's while a bar is drawn.
        self._writer: Writer = JsonLines(sys.stdout) if path is None else self._opened(path)

    def write(self, table: pa.Table) -> bool:
        """Write the predictions of some rows; whether somebody still reads them."""
        try:
            read = self._writer.write(table)
        except OSError as error:
            raise self._cannot(error) from error
        self.rows += table.num_rows
        return read

    def finish(self) -> None:
        """All are there."""
        try:
            self._writer.close()
            if self._path is not None:
                os.replace(self.partial, self._path)
        except OSError as error:
            raise self._cannot(error) from error

    def stop(self) -> str:
        """Not all are there; says where those are that are."""
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
        """The file until it is whole."""
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
    """A value as JSON can hold it: null for what is no number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value
