"""Contexts and right answers of a split that is evaluated, beside its windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

FILE = "reading.parquet"


@dataclass(frozen=True, eq=False)
class Reading:
    """What answers are read from, and held against.

    Attributes:
        ids: Ids of the questions, string [rows].
        contexts: Their contexts, string [rows].
        golds: The right answers to each, none where there is none.
    """

    ids: pa.ChunkedArray
    contexts: pa.ChunkedArray
    golds: list[list[str]]


def write_reading(table: pa.Table, folder: Path) -> None:
    """Leave ids, contexts and right answers of a checked table in the folder of its windows."""
    golds = [[text or "" for text in (row or {}).get("text") or []] for row in table["answers"].to_pylist()]
    kept = {"id": table["id"], "context": table["context"], "golds": pa.array(golds, pa.list_(pa.string()))}
    pq.write_table(pa.table(kept), folder / FILE)


def read_reading(folder: Path, rows: int | None) -> Reading:
    """The first ``rows`` rows; None is all."""
    table = pq.read_table(folder / FILE).slice(0, rows)
    return Reading(table["id"], table["context"], table["golds"].to_pylist())
