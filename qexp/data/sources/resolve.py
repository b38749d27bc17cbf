"""Sources of rows: local files, the hub or the built-in sample, validated before anything reads them.

Rows have the same form whatever their source, and equal rows have an equal :func:`fingerprint`. Bad rows are
never dropped silently: each raises a :class:`~qexp.errors.DataError` with its location, or is counted among
the skipped ones (:mod:`qexp.data.skipped`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import Data, RetrievalTask, Task
from qexp.data import hub
from qexp.data.arrow import to_numpy
from qexp.data.formats import finder
from qexp.data.sources import class_names
from qexp.data.sources.forms import COMPLETED, JOINED, form_of
from qexp.data.sources.local import Local, root_of, ways
from qexp.data.sources.row_checks import RowCheck, checks_of
from qexp.data.sources.splits import HELD_OUT, Division, held_out_share
from qexp.data.sources.tables import Tables, splits_of
from qexp.environment import ROOT_VARIABLE as ROOT_VARIABLE
from qexp.errors import DataError, path_hint

Source = Literal["local", "hub", "sample"]


@dataclass(frozen=True)
class SourceRows:
    """Validated rows of one task in canonical form.

    Attributes:
        source: Source of the rows.
        fingerprint: sha256 (hex) over the texts and labels; see :func:`fingerprint`.
        splits: Table of each split, with the columns that ``checked`` of the task's module in
            :data:`~qexp.data.sources.forms.FORMS` returns.
        task: Task of the rows, with what it left open: classes, range and metrics.
        notes: Warnings for the Record, such as why ``auto`` skipped a source.
        statements: Sentences for the Record on what was read: files, splits that were made, classes.
        checks: Checks of rows that may mislead; those that should worry are among the notes, too.
    """

    source: Source
    fingerprint: str
    splits: Mapping[str, pa.Table]
    task: Task
    notes: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    checks: tuple[RowCheck, ...] = ()


def resolve(data: Data, task: Task, *, sweep: bool = False) -> SourceRows:
    """Read and validate the rows that the task trains and evaluates on.

    Args:
        data: Source of the rows; ``auto`` tries local files, the hub and then the sample.
        task: Columns, splits and allowed labels.
        sweep: Whether several runs are compared; ``auto`` then never falls back on the sample.

    Raises:
        DataError: The source is out of reach, or a file, column, text or label is missing or invalid.
    """
    if data.source == "auto":
        source, found = _first_at_hand(data, task, sweep=sweep)
    else:
        source, found = data.source, _SOURCES[data.source](data, task)
    tables, form, statements = found.tables, form_of(task), found.statements
    for where, table in tables.values():
        form.check(table, task, where)
    if join := JOINED.get(type(task)):
        found = join(found, task, data.max_skipped)
        tables, statements = found.tables, found.statements
    if complete := COMPLETED.get(type(task)):
        task, more = complete(task, tables)
        statements += more
    splits = {split: form.checked(table, task, where) for split, (where, table) in tables.items()}
    if found.division is not None:
        (where, _), table = tables[task.train], splits[task.train]
        splits, sentence = found.division.apply(table, form.split_by(task), where)
        statements = (sentence, *statements)
    if (share := held_out_share(task)) is not None:
        (where, _), table = tables[task.train], splits[task.train]
        division = Division((task.train, HELD_OUT), share, data.split_seed)
        parts, sentence = division.apply(table, form.split_by(task), where)
        splits, statements = (
            splits | parts,
            (*statements, f"rows for thresholds: {sentence}"),
        )
    notes = (*found.notes, *class_names.notes_on_rows(tables, task))
    if hasattr(form, "scored"):
        for split in dict.fromkeys(task.evaluation.values()):
            splits[split], more_notes, more = form.scored(splits[split], split, data.max_skipped)
            notes, statements = (*notes, *more_notes), (*statements, *more)
    checks = () if source == "sample" else tuple(checks_of(splits, task))
    notes = (*notes, *(check.sentence for check in checks if check.is_warning))
    mark = fingerprint(splits, sample=source == "sample")
    return SourceRows(source, mark, splits, task=task, notes=notes, statements=statements, checks=checks)


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


# Sources


def _first_at_hand(data: Data, task: Task, *, sweep: bool) -> tuple[Source, Tables]:
    """Resolve ``data.source=auto``: a source that is out of reach is skipped, one with bad rows is not."""
    root = root_of(data)
    if data.path is not None:
        return "local", _local(data, task)
    if root is not None and not root.is_dir():
        name = "data.root" if data.root else ROOT_VARIABLE
        hint = path_hint(data.root or root, folder=True)
        raise DataError(
            f"{name}={root}: no such folder; {hint}correct it, or {ways('local', 'hub', 'sample')}"
        )
    names = dict.fromkeys(name for _, name, _ in splits_of(task))
    absent = [name for name in names if root is not None and not finder.folder_of(root, name)]
    if root is not None and not absent:
        return "local", _local(data, task)
    missed = f"no folder {root / absent[0]}" if root else f"data.root and {ROOT_VARIABLE} are not set"
    try:
        return "hub", _hub(data, task)
    except DataError as error:
        reasons = f"local: {missed}; hub: {error.__cause__}"
        if sweep:
            raise DataError(
                f"data.source=auto: no rows of {task.name} ({reasons}). A sweep never falls back on the "
                f"sample; {ways('local', 'hub', 'sample')}"
            ) from error
    note = f"data.source=auto fell back on the generated sample, whose scores mean nothing ({reasons})"
    found = _sample(data, task)
    return "sample", Tables(found.tables, notes=(note,))


def _local(data: Data, task: Task) -> Tables:
    return Local(data, task).tables()


def _hub(data: Data, task: Task) -> Tables:
    if isinstance(task, RetrievalTask) and task.layout == "beir":
        raise DataError(
            f"data.source=hub with task={task.name}: sets of BEIR's layout are read from a folder; download "
            "corpus, queries and qrels, and name it with data.path=DIR"
        )
    wanted = splits_of(task)
    try:
        sets = {
            name: hub.tables(name, list(dict.fromkeys(own for _, of, own in wanted if of == name)))
            for name in dict.fromkeys(name for _, name, _ in wanted)
        }
    except DataError as error:
        raise DataError(f"data.source=hub: {error}; {ways('local', 'sample')}") from error
    return Tables(
        {
            split: (f"{', '.join(hub.place(name))}, split {own}", sets[name][own])
            for split, name, own in wanted
        }
    )


def _sample(data: Data, task: Task) -> Tables:
    from qexp.data.synthetic import sample

    wanted = splits_of(task)
    sets = {name: sample(name) for name in dict.fromkeys(name for _, name, _ in wanted)}
    for _, name, own in wanted:
        if own not in sets[name]:
            raise DataError(f"the sample of {name} has no split {own!r}; it has {', '.join(sets[name])}")
    return Tables({split: (f"sample of {name}, split {own}", sets[name][own]) for split, name, own in wanted})


_SOURCES: dict[str, Callable[[Data, Task], Tables]] = {"local": _local, "hub": _hub, "sample": _sample}
