"""Contexts and gold answers of an evaluation split, stored in the folder of its windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

FILE = "reading.parquet"


@dataclass(frozen=True, eq=False)
class References:
    """Contexts that answers are extracted from, and the gold answers to compare them with.

    Attributes:
        ids: Ids of the questions, string [rows].
        contexts: Contexts of the questions, string [rows].
        golds: Gold answers of each question; empty if it has no answer.
    """

    ids: pa.ChunkedArray
    contexts: pa.ChunkedArray
    golds: list[list[str]]


def write_reading(table: pa.Table, folder: Path) -> None:
    """Write ids, contexts and gold answers of a validated table to the folder of its windows."""
    golds = [[text or "" for text in (row or {}).get("text") or []] for row in table["answers"].to_pylist()]
    columns = {
        "id": table["id"],
        "context": table["context"],
        "golds": pa.array(golds, pa.list_(pa.string())),
    }
    pq.write_table(pa.table(columns), folder / FILE)


def read_reading(folder: Path, rows: int | None) -> References:
    """Read the references of the first ``rows`` rows, or of all rows if None."""
    table = pq.read_table(folder / FILE).slice(0, rows)
    return References(table["id"], table["context"], table["golds"].to_pylist())
