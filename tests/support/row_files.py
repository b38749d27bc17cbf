"""Files of rows in every format that is read."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Mapping[str, Sequence[Any]]
"""Values by column."""


def _objects(rows: Rows) -> list[dict[str, Any]]:
    return [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]


def write_csv(path: Path, rows: Rows, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([list(rows), *zip(*rows.values(), strict=True)])
    return path


def write_tsv(path: Path, rows: Rows) -> Path:
    lines = [list(rows), *zip(*rows.values(), strict=True)]
    path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")
    return path


def write_json_lines(path: Path, rows: Rows) -> Path:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _objects(rows)), encoding="utf-8"
    )
    return path


def write_json(path: Path, rows: Rows) -> Path:
    path.write_text(json.dumps(_objects(rows)), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    pq.write_table(pa.table(dict(rows)), path)
    return path


def write_saved(path: Path, rows: Rows) -> Path:
    import datasets

    datasets.Dataset.from_dict({name: list(values) for name, values in rows.items()}).save_to_disk(str(path))
    return path


WRITERS: Mapping[str, Callable[[Path, Rows], Path]] = {
    "rows.csv": write_csv,
    "rows.tsv": write_tsv,
    "rows.jsonl": write_json_lines,
    "rows.json": write_json,
    "rows.parquet": write_parquet,
    "rows": write_saved,
}
"""Writers by the name of the file or folder."""
