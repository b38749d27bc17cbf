"""Sources of rows: a local folder, the hub or the built-in sample, validated before anything reads them.

Rows have the same form whatever their source, and equal rows have an equal :func:`fingerprint`. Bad rows are
never dropped silently: each raises a :class:`~qexp.errors.DataError` with its location.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from qexp.config import Data, QuestionTask, Task, TextTask, TranslationTask
from qexp.data import hub
from qexp.data.arrow import to_numpy
from qexp.data.sources import class_names, question_rows, text_rows, translation_rows
from qexp.data.sources.validation import ID_COLUMNS, check_columns
from qexp.environment import ROOT_VARIABLE as ROOT_VARIABLE
from qexp.errors import DataError

Source = Literal["local", "hub", "sample"]

WAYS = {
    "local": "data=local data.root=DIR (DIR/<task>/<split>.parquet)",
    "hub": "data=hub",
    "sample": "data=sample (generated rows: shows that a run works, its scores mean nothing)",
}
"""Overrides that select each source, for error messages."""

FORMS: Mapping[type[Task], Any] = {
    QuestionTask: question_rows,
    TextTask: text_rows,
    TranslationTask: translation_rows,
}
"""By class of task, the module that names the ``columns`` to read and validates a table (``checked``)."""


@dataclass(frozen=True)
class SourceRows:
    """Validated rows of one task in canonical form.

    Attributes:
        source: Source of the rows.
        fingerprint: sha256 (hex) over the texts and labels; see :func:`fingerprint`.
        splits: Table of each split, with the columns that ``checked`` of the task's module in :data:`FORMS`
            returns.
        notes: Sentences for the Record, such as why ``auto`` skipped a source.
    """

    source: Source
    fingerprint: str
    splits: Mapping[str, pa.Table]
    notes: tuple[str, ...] = ()


def resolve(data: Data, task: Task, *, sweep: bool = False) -> SourceRows:
    """Read and validate the rows that the task trains and evaluates on.

    Args:
        data: Source of the rows; ``auto`` tries the local folder, the hub and then the sample.
        task: Columns, splits and allowed labels.
        sweep: Whether several runs are compared; ``auto`` then never falls back on the sample.

    Raises:
        DataError: The source is out of reach, or a file, column, text or label is missing or invalid.
    """
    if data.source == "auto":
        source, tables, notes = _first_at_hand(data, task, sweep=sweep)
    else:
        source, tables, notes = data.source, _SOURCES[data.source](data, task), ()
    form = FORMS[type(task)]
    splits = {split: form.checked(table, task, where) for split, (where, table) in tables.items()}
    notes += class_names.notes_on_rows(tables, task)
    return SourceRows(source, fingerprint(splits, sample=source == "sample"), splits, notes=notes)


def fingerprint(splits: Mapping[str, pa.Table], *, sample: bool = False) -> str:
    """Return the sha256 (hex) over the texts and labels of validated tables, in row order.

    Ids, extra columns, the source, compression, row groups and integer or string widths do not affect it.
    ``sample`` marks generated rows, so that they are never mistaken for real ones.
    """
    digest = hashlib.sha256(b"sample" if sample else b"rows")
    for split in sorted(splits):
        table = splits[split].drop_columns(["id"])
        digest.update(json.dumps([split, table.num_rows, table.column_names]).encode())
        for column in table.columns:
            for part in _content(column):
                digest.update(part)
    return digest.hexdigest()


def _content(column: pa.ChunkedArray) -> Iterable[Any]:
    """Yield the bytes of a column, independent of its chunks; nulls may occur only in lists and structs."""
    if pa.types.is_nested(column.type):
        # JSON, because the memory layout of nested values varies; row by row, to bound memory.
        yield from (json.dumps(value.as_py()).encode() for value in column)
        return
    if column.type != pa.string():
        yield np.ascontiguousarray(to_numpy(column))
        return
    offsets = [
        np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        for chunk in column.chunks
        if len(chunk)
    ]
    yield np.concatenate([np.diff(part) for part in offsets]).astype(np.int64)
    filled = [chunk for chunk in column.chunks if len(chunk)]
    for chunk, part in zip(filled, offsets, strict=True):
        if part[0] < part[-1]:
            yield memoryview(chunk.buffers()[2])[part[0] : part[-1]]


# Sources: each returns, by split, a table and its location for error messages.

_Tables = dict[str, tuple[str, pa.Table]]


def _first_at_hand(data: Data, task: Task, *, sweep: bool) -> tuple[Source, _Tables, tuple[str, ...]]:
    """Resolve ``data.source=auto``: a source that is out of reach is skipped, one with bad rows is not."""
    root = _root(data)
    if root is not None and not root.is_dir():
        name = "data.root" if data.root else ROOT_VARIABLE
        raise DataError(f"{name}={root}: no such folder; correct it, or {_ways('local', 'hub', 'sample')}")
    if root is not None and (root / task.name).is_dir():
        return "local", _local(data, task), ()
    missed = f"no folder {root / task.name}" if root else f"data.root and {ROOT_VARIABLE} are not set"
    try:
        return "hub", _hub(data, task), ()
    except DataError as error:
        reasons = f"local: {missed}; hub: {error.__cause__}"
        if sweep:
            raise DataError(
                f"data.source=auto: no rows of {task.name} ({reasons}). A sweep never falls back on the "
                f"sample; {_ways('local', 'hub', 'sample')}"
            ) from error
    note = f"data.source=auto fell back on the generated sample, whose scores mean nothing ({reasons})"
    return "sample", _sample(data, task), (note,)


def _local(data: Data, task: Task) -> _Tables:
    root = _root(data)
    if root is None:
        raise DataError(
            f"data.source=local: data.root is null and {ROOT_VARIABLE} is not set; "
            f"{_ways('local', 'hub', 'sample')}"
        )
    tables: _Tables = {}
    for split, name, own in _splits(task):
        folder = root / name
        if not folder.is_dir():
            raise DataError(
                f"data.source=local: {root} has no folder {name!r}; {_ways('local', 'hub', 'sample')}"
            )
        path = folder / f"{own}.parquet"
        tables[split] = (str(path), _read(path, task))
    return tables


def _hub(data: Data, task: Task) -> _Tables:
    wanted = _splits(task)
    try:
        sets = {
            name: hub.tables(name, list(dict.fromkeys(own for _, of, own in wanted if of == name)))
            for name in dict.fromkeys(name for _, name, _ in wanted)
        }
    except DataError as error:
        raise DataError(f"data.source=hub: {error}; {_ways('local', 'sample')}") from error
    return {
        split: (f"{', '.join(hub.place(name))}, split {own}", sets[name][own]) for split, name, own in wanted
    }


def _sample(data: Data, task: Task) -> _Tables:
    from qexp.data.synthetic import sample

    wanted = _splits(task)
    sets = {name: sample(name) for name in dict.fromkeys(name for _, name, _ in wanted)}
    for _, name, own in wanted:
        if own not in sets[name]:
            raise DataError(f"the sample of {name} has no split {own!r}; it has {', '.join(sets[name])}")
    return {split: (f"sample of {name}, split {own}", sets[name][own]) for split, name, own in wanted}


_SOURCES: dict[str, Callable[[Data, Task], _Tables]] = {"local": _local, "hub": _hub, "sample": _sample}


def _root(data: Data) -> Path | None:
    folder = data.root or os.environ.get(ROOT_VARIABLE)
    return Path(folder).expanduser().absolute() if folder else None


def _splits(task: Task) -> list[tuple[str, str, str]]:
    """Return, for each split, its name in the task, its data set, and its name in that data set."""
    splits = dict.fromkeys([task.train, *task.evaluation.values()])
    apart = [(split, *split.rpartition("/")) for split in splits]
    return [(split, name or task.name, own) for split, name, _, own in apart]


def _ways(*sources: str) -> str:
    return "choose one of: " + "; ".join(WAYS[source] for source in sources)


def _read(path: Path, task: Task) -> pa.Table:
    """Read the columns of a parquet file that the task uses."""
    if not path.is_file():
        present = ", ".join(sorted(entry.name for entry in path.parent.iterdir())) or "nothing"
        raise DataError(f"{path}: no such file; the folder holds {present}; add the split, or choose another")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            form = FORMS[type(task)]
            check_columns(names, form.columns(task), str(path), fields=form.FIELDS)
            used = {*form.columns(task), *ID_COLUMNS}
            return file.read(columns=[name for name in names if name in used])
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} ({path.stat().st_size} bytes): not a readable parquet file: {error}; "
            "copy or write it again"
        ) from error
