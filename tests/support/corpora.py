"""Folders with a corpus, queries and judgments in BEIR's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.row_files import write_json_lines, write_parquet, write_tsv

CORPUS: Mapping[str, Sequence[Any]] = {
    "_id": ["d1", "d2", "d3", "d4"],
    "title": ["Cats", "", "Birds", ""],
    "text": ["a cat sleeps", "the old dog", "a bird sees the cat", "two men"],
}
QUERIES: Mapping[str, Sequence[Any]] = {
    "_id": ["q1", "q2", "q3", "q4"],
    "text": ["who sleeps", "which dog", "what sees a bird", "how many men"],
}
TEST: Mapping[str, Sequence[Any]] = {
    "query-id": ["q1", "q1", "q2"],
    "corpus-id": ["d1", "d3", "d2"],
    "score": [2, 1, 1],
}
TRAIN: Mapping[str, Sequence[Any]] = {"query-id": ["q3"], "corpus-id": ["d3"], "score": [1]}


def write_beir(folder: Path, **changes: Mapping[str, Sequence[Any]] | None) -> Path:
    """Write the files; ``corpus``, ``queries``, ``test`` and ``train`` replace columns, or None a file."""
    (folder / "qrels").mkdir(parents=True)
    parts = {"corpus": CORPUS, "queries": QUERIES, "test": TEST, "train": TRAIN}
    for name, rows in parts.items():
        change = changes.get(name, {})
        if change is None:
            continue
        if name in ("corpus", "queries"):
            write_json_lines(folder / f"{name}.jsonl", {**rows, **change})
        else:
            write_tsv(folder / "qrels" / f"{name}.tsv", {**rows, **change})
    return folder


def write_hub(folder: Path) -> Path:
    """Write the same tables as the hub has them: parquet, with numbers as ids of queries."""
    for name in ("corpus", "queries", "default"):
        (folder / name).mkdir(parents=True)
    numbers = {"q1": 1, "q2": 2, "q3": 3, "q4": 4}
    ids = [numbers[name] for name in QUERIES["_id"]]
    write_parquet(folder / "corpus" / "corpus-00000-of-00001.parquet", CORPUS)
    write_parquet(folder / "queries" / "queries-00000-of-00001.parquet", {**QUERIES, "_id": ids})
    for split, rows in (("test", TEST), ("train", TRAIN)):
        named = {**rows, "query-id": [numbers[name] for name in rows["query-id"]]}
        write_parquet(folder / "default" / f"{split}-00000-of-00001.parquet", named)
    return folder
