"""Checks of rows that are valid but may mislead: duplicates, rare classes, cuts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

from qexp.config import Task, TextTask
from qexp.data.arrow import to_numpy
from qexp.data.sources.forms import JOINED, form_of
from qexp.data.sources.labels import listed

ONE_SIDED = 0.8
"""Share of the most frequent class from which accuracy says little."""
ENOUGH = 10
"""Rows for each class from which a split can be called one-sided, or to lack a class."""
MANY_CUT = 0.01
"""Share of the rows of a split that are cut from which it is a warning."""
_SPACE = r"\s+"


@dataclass(frozen=True)
class RowCheck:
    """Result of one check: a sentence, and whether it should worry."""

    name: str
    sentence: str
    is_warning: bool = False


def checks_of(splits: Mapping[str, pa.Table], task: Task) -> list[RowCheck]:
    """Return the checks of validated rows.

    Args:
        splits: Table of each split in canonical form.
        task: Task with its labels.
    """
    if type(task) in JOINED or task.train not in splits:
        return []
    evaluated = [split for split in dict.fromkeys(task.evaluation.values()) if split != task.train]
    checks = [_duplicates(splits, split, task) for split in evaluated]
    if isinstance(task, TextTask) and task.kind == "classification":
        checks += [_balance(splits[split], split, task) for split in evaluated]
    return checks


def cut_rows(split: str, cut: int, rows: int, max_length: int) -> RowCheck:
    """Return the check of rows that are longer than the longest sequence."""
    share = cut / rows if rows else 0.0
    sentence = f"{split}: {cut} of {rows} rows ({_percent(share)}) are cut at task.max_length={max_length}"
    is_warning = share >= MANY_CUT
    return RowCheck(
        "truncation", sentence + "; set a larger one if the model takes it" * is_warning, is_warning
    )


def _duplicates(splits: Mapping[str, pa.Table], split: str, task: Task) -> RowCheck:
    """Count the rows of an evaluation split whose texts, but for case and spaces, are in the train split."""
    names = form_of(task).texts_in(task)
    known, texts = (_plain(splits[each], names) for each in (task.train, split))
    count = int(pc.sum(pc.is_in(texts, value_set=known)).as_py() or 0)
    share = count / max(1, len(texts))
    rows = f"{count} of {len(texts)} rows ({_percent(share)})"
    sentence = f"{split}: {rows} have the texts of {task.train} rows"
    return RowCheck("duplicates", sentence + ", so scores are too good" * (count > 0), count > 0)


def _plain(table: pa.Table, names: Sequence[str]) -> pa.Array:
    columns = [_texts(table.column(name)) for name in names if name in table.column_names]
    joined = pc.binary_join_element_wise(*columns, _separator()) if len(columns) > 1 else columns[0]
    spaced = pc.replace_substring_regex(pc.utf8_lower(joined), _SPACE, " ")
    return pc.utf8_trim_whitespace(spaced).combine_chunks()


def _separator() -> pa.Scalar:
    """Return the character between texts; ``pa.scalar`` would import pandas, which takes half a second."""
    offsets = pa.py_buffer(np.array([0, 1], np.int64))
    return pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(b"\x1f")])[0]


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(column.type):
        return column.cast(pa.large_string())
    texts = [json.dumps(value, ensure_ascii=False) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.large_string())])


def _balance(table: pa.Table, split: str, task: TextTask) -> RowCheck:
    counts = np.bincount(to_numpy(table.column("label")), minlength=len(task.labels))
    order = sorted(range(len(task.labels)), key=lambda place: -int(counts[place]))
    shares = counts / max(1, int(counts.sum()))
    parts = [f"{task.labels[place]} {_percent(float(shares[place]))}" for place in order]
    sentence = f"{split}: {listed(parts)}; guessing the first is right for {_percent(float(shares.max()))}"
    if table.num_rows < ENOUGH * len(task.labels):
        return RowCheck("balance", sentence)
    if absent := [name for name, count in zip(task.labels, counts, strict=True) if not count]:
        sentence += f"; no row has {listed(absent)}, so scores say nothing about it"
    elif shares.max() >= ONE_SIDED:
        sentence += "; accuracy says little here, task.metrics=[f1_macro,accuracy] weighs classes alike"
    return RowCheck("balance", sentence, bool(absent) or float(shares.max()) >= ONE_SIDED)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
