"""Tests of the mapping of class ids by name, for rows and heads with another order of classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qexp.config import Data, TextTask
from qexp.data.sources.class_names import METADATA, are_placeholders, names_in, notes_on_head
from qexp.data.sources.resolve import SourceRows, resolve
from qexp.errors import DataError, ModelError

TASK = TextTask.model_validate(
    {
        "name": "sst2", "kind": "classification", "text": ["sentence"], "labels": ["negative", "positive"],
        "metrics": ["accuracy"], "evaluation": {"validation": "validation"},
    }
)  # fmt: skip
SWAPPED = ("Positive", "Negative")


def write(folder: Path, names: Sequence[str] | None, ids: Sequence[int] = (0, 1, 1)) -> None:
    """A split as ``datasets`` writes it: the names of a ClassLabel are in the schema."""
    table = pa.table({"sentence": [f"{folder.stem} {index}" for index, _ in enumerate(ids)], "label": [*ids]})
    if names:
        features = {"sentence": {"dtype": "string"}, "label": {"names": [*names], "_type": "ClassLabel"}}
        metadata = {METADATA: json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    folder.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder)


def rows(root: Path, train: Sequence[str] | None, validation: Sequence[str] | None) -> SourceRows:
    write(root / "sst2" / "train.parquet", train)
    write(root / "sst2" / "validation.parquet", validation)
    return resolve(Data(source="local", root=str(root)), TASK)


def labels(found: SourceRows, split: str) -> list[int]:
    return list(found.splits[split]["label"].to_pylist())


def test_another_order_of_the_same_names_is_put_into_the_tasks(tmp_path: Path) -> None:
    found = rows(tmp_path / "a", SWAPPED, ("negative", "positive"))
    assert labels(found, "train") == [1, 0, 0]
    assert labels(found, "validation") == [0, 1, 1]
    (note,) = found.notes
    assert "train.parquet" in note
    assert "Positive, Negative" in note
    assert "negative, positive" in note


def test_mapped_rows_are_the_same_rows_as_those_in_the_right_order(tmp_path: Path) -> None:
    mapped = rows(tmp_path / "a", SWAPPED, SWAPPED)
    for split in ("train", "validation"):
        write(tmp_path / "b" / "sst2" / f"{split}.parquet", TASK.labels, (1, 0, 0))
    right = resolve(Data(source="local", root=str(tmp_path / "b")), TASK)
    assert mapped.fingerprint == right.fingerprint
    assert right.notes == ()


@pytest.mark.parametrize("names", [None, ("LABEL_0", "LABEL_1"), ("0", "1"), ("NEGATIVE", "POSITIVE")])
def test_no_names_placeholders_and_the_tasks_order_change_nothing(
    names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    found = rows(tmp_path, names, names)
    assert labels(found, "train") == [0, 1, 1]
    assert found.notes == ()


@pytest.mark.parametrize("names", [("bad", "good"), ("negative", "positive", "neutral"), ("positive",) * 2])
def test_other_names_are_refused_in_one_line(names: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"train\.parquet: column 'label' has the classes .*set task\.labels="
    ) as caught:
        rows(tmp_path, names, names)
    assert "\n" not in str(caught.value)


def test_a_split_without_names_beside_one_in_another_order_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation\.parquet does not name its classes"):
        rows(tmp_path, SWAPPED, None)


def test_an_id_out_of_range_is_told_as_it_stands_in_the_file(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path / "sst2" / f"{split}.parquet", SWAPPED, (0, 7, 1))
    with pytest.raises(DataError, match=r"row 1 .*: 7 "):
        resolve(Data(source="local", root=str(tmp_path)), TASK)


def test_datasets_own_files_and_tables_have_names_that_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["positive", "negative"])}
    )
    made = datasets.Dataset.from_dict({"sentence": ["a"], "label": [1]}, features=features)
    assert names_in(made.with_format("arrow")[:], "label") == ("positive", "negative")
    made.to_parquet(tmp_path / "file.parquet")
    read = pq.ParquetFile(tmp_path / "file.parquet").read(columns=["label"])
    assert names_in(read, "label") == ("positive", "negative")


def test_placeholders_in_any_order_name_nothing() -> None:
    assert are_placeholders(["LABEL_1", "LABEL_0"])
    assert are_placeholders(["0", "1", "2"])
    assert not are_placeholders(["LABEL_0", "positive"])
    assert not are_placeholders(["1", "2"])


@pytest.mark.parametrize(
    ("id2label", "part"),
    [
        (
            {"0": "POSITIVE", "1": "NEGATIVE"},
            "POSITIVE, NEGATIVE, into that of task.labels, negative, positive",
        ),
        ({"0": "LABEL_0", "1": "LABEL_1"}, "does not name its classes"),
        (None, "does not name its classes"),
    ],
)
def test_a_head_in_another_order_or_without_names_is_told(id2label: Any, part: str) -> None:
    (note,) = notes_on_head({"id2label": id2label} if id2label else {}, TASK)
    assert part in note


def test_a_head_in_the_tasks_order_needs_no_word_and_one_of_other_names_is_refused() -> None:
    assert notes_on_head({"id2label": {"0": "Negative", "1": "Positive"}}, TASK) == ()
    with pytest.raises(ModelError, match="rename id2label"):
        notes_on_head({"id2label": {"0": "bad", "1": "good"}}, TASK)
