"""Readers that stream the rows to predict from a file or from standard input."""

from __future__ import annotations

import csv
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from qexp.data.sources.validation import check_columns
from qexp.errors import DataError, path_hint

STANDARD_INPUT = "-"
Row = Mapping[str, Any]
Places = Iterator[tuple[str, Row]]
"""Rows, each with the name of its position in the input."""
_READ_AT_ONCE = 1024


class InputRows:
    """Rows of an input file or of standard input.

    Args:
        source: Path with one of the suffixes in :data:`READERS`, or ``-`` for standard input.
        columns: Columns that hold the texts.
        whole: Whether to keep all columns, not only ``columns``.
        lists: Whether a row may have a list of words in place of a text.
    """

    def __init__(self, source: str, columns: Sequence[str], *, whole: bool, lists: bool = False) -> None:
        self.name = "standard input" if source == STANDARD_INPUT else source
        self._path = None if source == STANDARD_INPUT else Path(source)
        self._columns, self._whole, self._words = tuple(columns), whole, lists

    @property
    def total(self) -> int | None:
        """Estimated number of rows, for a progress bar; None if counting takes as long as reading."""
        if self._path is None or not self._path.is_file():
            return None
        if self._path.suffix == ".parquet":
            with self._arrow() as file:
                return int(file.metadata.num_rows)
        with self._path.open("rb") as lines:
            count = sum(block.count(b"\n") for block in iter(lambda: lines.read(2**20), b""))
        return count - (self._path.suffix in (".csv", ".tsv")) or None

    def parts(self, size: int) -> Iterator[list[Row]]:
        """Yield at most ``size`` rows at a time, in order, each with a text in every column.

        Raises:
            DataError: The input cannot be read or has no rows, or a row lacks a text.
        """
        part: list[Row] = []
        yielded = False
        for place, row in self._read():
            self._check(place, row)
            part.append(row if self._whole else {name: row[name] for name in self._columns})
            if len(part) == size:
                yield part
                part, yielded = [], True
        if part:
            yield part
        elif not yielded:
            raise DataError(f"{self.name}: no rows; give at least one, with {', '.join(self._columns)}")

    def check_first(self) -> None:
        """Check the first row of a file, before a model is loaded; standard input can be read only once.

        Raises:
            DataError: The file cannot be read, or the row lacks a column.
        """
        if self._path is not None:
            for place, row in self._read():
                self._check(place, row)
                break

    def _read(self) -> Places:
        if self._path is None:
            # sys.stdin decodes with the locale's encoding; a second stream on its descriptor reads UTF-8.
            with (
                self._as_data_error(),
                open(sys.stdin.fileno(), encoding="utf-8-sig", closefd=False) as stream,
            ):
                yield from self._lines(stream)
            return
        reader = READERS.get(self._path.suffix)
        if reader is None and not self._path.exists() and (" " in self.name or not self._path.suffix):
            raise DataError(self._taken_for_a_path())
        if reader is None:
            raise DataError(
                f"{self.name}: {self._path.suffix or 'no ending'} is no kind of rows; {path_hint(self.name)}"
                f"allowed are {', '.join(READERS)}, and - for standard input"
            )
        with self._as_data_error():
            yield from reader(self)

    def _taken_for_a_path(self) -> str:
        """Describe how a text, which was given in place of a file, is predicted."""
        pair = json.dumps(dict.fromkeys(self._columns, "…"), ensure_ascii=False)
        text = shlex.quote(self.name if len(self._columns) == 1 else pair)
        how = f"a text comes on standard input: echo {text} | qexp predict RUN -"
        return f"{self.name}: no such file; {path_hint(self.name)}{how}"

    @contextmanager
    def _as_data_error(self) -> Iterator[None]:
        """Convert errors of files and decoders to DataError."""
        try:
            yield
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name}: not UTF-8 ({error.reason}); write the text as UTF-8") from error
        except (OSError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(
                f"{self.name}: cannot be read: {reason}; {path_hint(self.name)}name a file that is there "
                "and whole"
            ) from error

    def json_lines(self) -> Places:
        """Yield rows of JSON lines: one object per line."""
        with self._text() as file:
            yield from self._objects(enumerate(file, 1))

    def texts(self) -> Places:
        """Yield rows of a plain text file: one text per line."""
        with self._text() as file:
            yield from self._plain(enumerate(file, 1))

    def commas(self) -> Places:
        """Yield rows of comma-separated values with a header, quoted as by spreadsheets."""
        yield from self._separated(delimiter=",")

    def tabs(self) -> Places:
        """Yield rows of tab-separated values with a header and without quoting, as in GLUE's files."""
        yield from self._separated(delimiter="\t", quoting=csv.QUOTE_NONE)

    def parquet(self) -> Places:
        """Yield rows of a parquet file; only the wanted columns are read."""
        import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

        with self._arrow() as file:
            check_columns(file.schema_arrow.names, self._columns, self.name, fields="")
            wanted = None if self._whole else list(self._columns)
            place = 0
            try:
                for batch in file.iter_batches(_READ_AT_ONCE, columns=wanted):
                    for row in batch.to_pylist():
                        yield f"row {place} (counted from 0)", row
                        place += 1
            except pa.ArrowException as error:
                raise self._not_parquet(error) from error

    def _lines(self, stream: TextIO) -> Places:
        """Yield rows of JSON lines if the first line starts with a brace, else of plain texts."""
        numbered = enumerate(stream, 1)
        first = next(numbered, None)
        if first is None:
            return
        read = self._objects if first[1].lstrip().startswith("{") else self._plain
        yield from read(chain([first], numbered))

    def _objects(self, lines: Iterator[tuple[int, str]]) -> Places:
        for number, line in lines:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{self.name}, line {number}: not JSON ({error}); write one object in each line"
                ) from None
            if not isinstance(row, dict):
                raise DataError(
                    f"{self.name}, line {number}: {type(row).__name__}, not an object; write "
                    f'{{"{self._columns[0]}": …}} in each line'
                )
            yield f"line {number}", row

    def _plain(self, lines: Iterator[tuple[int, str]]) -> Places:
        if len(self._columns) > 1:
            raise DataError(
                f"{self.name}: one text in each line, but the task reads {' and '.join(self._columns)}; "
                "write JSON, an object with these in each line"
            )
        for number, line in lines:
            yield f"line {number}", {self._columns[0]: line.rstrip("\r\n")}

    def _separated(self, **options: Any) -> Places:
        csv.field_size_limit(sys.maxsize)  # contexts may exceed the default of 128 KiB
        with self._text(newline="") as file:
            reader = csv.DictReader(file, strict=True, **options)
            if reader.fieldnames:
                check_columns(reader.fieldnames, self._columns, self.name, fields="")
            for row in reader:
                if None in row:
                    raise DataError(
                        f"{self.name}, line {reader.line_num}: more values than the {len(row) - 1} columns; "
                        "quote a text that holds the separator"
                    )
                yield f"line {reader.line_num}", row

    def _check(self, place: str, row: Row) -> None:
        """Raise DataError unless every column holds a text that can be encoded as UTF-8."""
        for name in self._columns:
            if name not in row:
                check_columns(list(row), self._columns, f"{self.name}, {place}", fields="")
            text = row[name]
            words = text if self._words and isinstance(text, list) else [text]
            if not all(isinstance(word, str) for word in words):
                lists = " or a list of words" if self._words else ""
                raise DataError(
                    f"{self.name}, {place}: {name!r} is {text!r}; every row needs a text{lists}, the empty "
                    "one is allowed; fill it in or drop the row"
                )
            try:
                "".join(words).encode()
            except UnicodeEncodeError:
                raise DataError(
                    f"{self.name}, {place}: {name!r} holds half a character; write the text as UTF-8"
                ) from None

    def _text(self, newline: str | None = None) -> TextIO:
        assert self._path is not None
        return self._path.open(encoding="utf-8-sig", newline=newline)

    @contextmanager
    def _arrow(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

        assert self._path is not None
        with self._path.open("rb") as raw:
            try:
                file = pq.ParquetFile(raw, page_checksum_verification=True)
            except pa.ArrowException as error:
                raise self._not_parquet(error) from error
            with file:
                yield file

    def _not_parquet(self, error: Exception) -> DataError:
        return DataError(f"{self.name}: not a readable parquet file: {error}; copy or write it again")


READERS: dict[str, Callable[[InputRows], Places]] = {
    ".jsonl": InputRows.json_lines,
    ".csv": InputRows.commas,
    ".tsv": InputRows.tabs,
    ".parquet": InputRows.parquet,
    ".txt": InputRows.texts,
}
"""Reader of each file format, by suffix."""
