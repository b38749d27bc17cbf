"""Division of the rows of one file into a train and a validation split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import MultiLabelTask, Task
from qexp.data.arrow import from_numpy
from qexp.errors import DataError

HELD_OUT = "held_out"
"""Split of rows that are taken from the train split to choose thresholds."""


def held_out_share(task: Task) -> float | None:
    """Return the share of the train split that is held out; None if no row is."""
    chosen = isinstance(task, MultiLabelTask) and task.search.fit != "none"
    return task.search.held_out if chosen else None  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Division:
    """Division of rows into a split to train on and one to validate on.

    A row belongs to a split by a hash of its texts, so that equal texts are in one split, and the splits
    depend neither on the order of rows nor on the format of the file.

    Attributes:
        splits: Names of the two splits.
        share: Share of the distinct texts to validate on, at least one of them.
        seed: Seed of the hash; another one makes other splits.
    """

    splits: Sequence[str]
    share: float
    seed: int

    def apply(self, table: pa.Table, columns: Sequence[str], where: str) -> tuple[dict[str, pa.Table], str]:
        """Return the rows of each split, in their order, and a sentence on them.

        Args:
            table: All rows.
            columns: Columns whose values are hashed.
            where: Name of the table in messages.

        Raises:
            DataError: There are fewer than two distinct texts.
        """
        marks = _hashes(table, columns, self.seed)
        distinct = np.unique(marks)
        if len(distinct) < 2:
            raise DataError(
                f"{where}: {table.num_rows} rows with one text cannot be divided into train and validation; "
                "add rows, or name a folder with a file for each split"
            )
        count = min(max(1, round(self.share * len(distinct))), len(distinct) - 1)
        held = marks <= distinct[count - 1]
        places = [from_numpy(np.flatnonzero(chosen)) for chosen in (~held, held)]
        parts = dict(zip(self.splits, map(table.take, places), strict=True))
        counts = ", ".join(f"{part.num_rows} {split}" for split, part in parts.items())
        field = "task.search.held_out" if HELD_OUT in self.splits else "data.validation_share"
        return parts, (
            f"{table.num_rows} rows of {where} divided by a hash of {' and '.join(columns)}: {counts} "
            f"({field}={self.share:g}, data.split_seed={self.seed})"
        )


def _hashes(
    table: pa.Table, columns: Sequence[str], seed: int
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    start = hashlib.sha256(f"split {seed}".encode())
    marks = []
    texts = (_bytes(table.column(name)) for name in columns)
    for values in zip(*texts, strict=True):
        digest = start.copy()
        for text in values:
            digest.update(len(text or b"").to_bytes(8, "little") + (text or b""))
        marks.append(digest.digest()[:8])
    return np.frombuffer(b"".join(marks), np.uint64)


def _bytes(column: pa.ChunkedArray) -> list[bytes | None]:
    """Return the UTF-8 bytes of a column of texts, or of the JSON of a column of lists."""
    if pa.types.is_list(column.type):
        return [json.dumps(value, ensure_ascii=False).encode() for value in column.to_pylist()]
    values: list[bytes | None] = column.cast(pa.binary()).to_pylist()
    return values
