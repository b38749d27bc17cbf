"""Tests of the rows of an embedding: their canonical form, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qexp.config import Data, EmbeddingTask
from qexp.data.sources import resolve
from qexp.data.sources.embedding_rows import checked
from qexp.errors import DataError
from tests.conftest import experiment


def task() -> EmbeddingTask:
    found = experiment("task=stsb_embedding").task
    assert isinstance(found, EmbeddingTask)
    return found


def table(**columns: Any) -> pa.Table:
    rows = {"sentence1": ["a cat", "a dog"], "sentence2": ["one cat", "two dogs"], "label": [4.5, -7.0]}
    return pa.table(rows | columns)


@pytest.mark.parametrize("labels", [[4.5, -7.0], ["4.5", "-7"]])
def test_canonical_form(labels: list[Any]) -> None:
    found = checked(table(label=labels, other=[1, 2]), task(), "rows")
    assert found.column_names == ["id", "sentence1", "sentence2", "label"]
    assert found["label"].to_pylist() == [4.5, -7.0]
    assert found["id"].to_pylist() == [0, 1]


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"label": [1.0, None]}, "label"),
        ({"label": [1.0, float("nan")]}, "label"),
        ({"label": ["much", "little"]}, "label"),
        ({"sentence2": ["one cat", None]}, "sentence2"),
        ({"sentence1": [1, 2]}, "sentence1"),
    ],
)
def test_what_is_refused(columns: dict[str, Any], part: str) -> None:
    with pytest.raises(DataError, match=f"rows: column '{part}'"):
        checked(table(**columns), task(), "rows")


def test_rows_of_another_data_set_are_at_hand(tmp_path: Path) -> None:
    """The folder that counts is that of STS-B, whose rows the task reads."""
    (tmp_path / "stsb").mkdir()
    for split in ("train", "validation"):
        pq.write_table(table(), tmp_path / "stsb" / f"{split}.parquet")
    found = resolve.resolve(Data(source="auto", root=str(tmp_path)), task())
    assert found.source == "local"
    assert {split: rows.num_rows for split, rows in found.splits.items()} == {
        "stsb/train": 2,
        "stsb/validation": 2,
    }
