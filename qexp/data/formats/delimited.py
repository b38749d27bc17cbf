"""Readers of comma- and tab-separated values."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.csv as pc  # type: ignore[import-untyped, unused-ignore]

from qexp.data.formats import glue
from qexp.data.formats.request import Request, as_data_error

WHOLE = 2**30
"""Most bytes that are parsed at once; a row must fit, and so must all lines of a quoted text."""
REPAIR = "write it again, with a header and the same number of values in each line"


def read_csv(path: Path, request: Request) -> pa.Table:
    """Read comma-separated values with a header, quoted as by spreadsheets; semicolons where the header has.

    All values are texts: what they stand for is decided with the task, and not by how the first ones look.
    """
    with as_data_error(path, "CSV file", REPAIR):
        line = _first_line(path)
        delimiter = ";" if "," not in line and ";" in line else ","
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, delimiter=delimiter), [])
        return _read(path, pc.ParseOptions(delimiter=delimiter, newlines_in_values=True), header)


def read_tsv(path: Path, request: Request) -> pa.Table:
    """Read tab-separated values without quoting, as GLUE's files are, with or without GLUE's header.

    Lines with another number of values than the header are counted as ``request.faults``: GLUE's own files
    have some.
    """
    with as_data_error(path, "TSV file", REPAIR):
        parsing = pc.ParseOptions(
            delimiter="\t", quote_char=False, invalid_row_handler=partial(_skip, request.faults)
        )
        first = _first_line(path).split("\t")
        names = glue.names_of(request.data_set, first)
        table = _read(path, parsing, names or first, headed=names is None)
    return glue.renamed(request.data_set, glue.of_split(path, request.split, table))


def _skip(faults: Any, row: pc.InvalidRow) -> str:
    # Rows have their number where a file is read by one thread.
    line = f"line {row.number}" if row.number is not None else repr(row.text[:20])
    faults.add(
        row.number or 0, line, f"it has another number of values than the {row.expected_columns} columns"
    )
    return "skip"


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig") as lines:
        return lines.readline().rstrip("\r\n")


def _read(path: Path, parsing: pc.ParseOptions, names: Sequence[str], *, headed: bool = True) -> pa.Table:
    size = max(2**20, min(path.stat().st_size + 1, WHOLE))
    reading = pc.ReadOptions(use_threads=False, block_size=size, column_names=None if headed else list(names))
    typing = pc.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    with path.open("rb") as file:
        return pc.read_csv(file, reading, parsing, typing)
