"""Rows with any number of labels: forms of files, open settings, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from qexp.config import MultiLabelTask
from qexp.data.sources.resolve import SourceRows, resolve
from qexp.errors import DataError
from tests.conftest import experiment
from tests.support.row_files import write_csv, write_json_lines, write_parquet, write_saved

TOPICS = [["red", "blue"], [], ["blue"], ["green"], ["blue", "red", "blue"], ["green"], [], ["red"]]
TEXTS = [f"text number {row}" for row in range(len(TOPICS))]
IDS = [[0, 2], [], [0], [1], [0, 2], [1], [], [2]]
NAMES = ("blue", "green", "red")


def read(path: Path, *words: str) -> SourceRows:
    made = experiment("task=multi_label", f"data.path={path}", "task.name=mine", *words)
    return resolve(made.data, made.task)


def labels(rows: SourceRows) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for table in rows.splits.values():
        found |= dict(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    return found


def in_lists(path: Path, write: Callable[[Path, Any], Path]) -> SourceRows:
    return read(write(path, {"text": TEXTS, "labels": TOPICS}))


def test_every_form_of_a_file_is_the_same_rows(tmp_path: Path) -> None:
    found = {
        "jsonl": in_lists(tmp_path / "a.jsonl", write_json_lines),
        "parquet": in_lists(tmp_path / "a.parquet", write_parquet),
        "saved": in_lists(tmp_path / "saved", write_saved),
    }
    one = [" | ".join(row) for row in TOPICS]
    path = write_csv(tmp_path / "one.csv", {"text": TEXTS, "topics": one})
    found["separated"] = read(path, "data.label=topics", "data.separator=|")
    columns = {name: [int(name in row) for row in TOPICS] for name in NAMES}
    path = write_csv(tmp_path / "columns.csv", {"text": TEXTS, **columns})
    found["indicators"] = read(path, "data.label=[blue,green,red]")
    renamed = {f"is_{name}": [name in row for row in TOPICS] for name in NAMES}
    path = write_parquet(tmp_path / "renamed.parquet", {"text": TEXTS, **renamed})
    names = "data.columns={blue: is_blue, green: is_green, red: is_red}"
    found["booleans"] = read(path, "data.label=[blue,green,red]", names)
    for name, rows in found.items():
        assert labels(rows) == dict(zip(TEXTS, IDS, strict=True)), name
        assert (rows.fingerprint, rows.task) == (found["jsonl"].fingerprint, found["jsonl"].task), name
    task = found["jsonl"].task
    assert isinstance(task, MultiLabelTask)
    assert (task.labels, task.metrics) == (NAMES, ("f1_micro", "f1_macro", "subset_accuracy"))


def test_names_in_the_schema_give_the_order(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "labels": datasets.Sequence(datasets.ClassLabel(names=["red", "green", "blue"])),
        }
    )
    ids = [[("red", "green", "blue").index(name) for name in row] for row in TOPICS]
    made = datasets.Dataset.from_dict({"text": TEXTS, "labels": ids}, features)
    made.save_to_disk(str(tmp_path / "saved"))
    rows = read(tmp_path / "saved")
    assert isinstance(rows.task, MultiLabelTask) and rows.task.labels == ("red", "green", "blue")
    rows = read(tmp_path / "saved", "task.labels=[blue,green,red]")
    assert labels(rows) == dict(zip(TEXTS, IDS, strict=True))


def test_held_out_rows_are_taken_from_the_train_split(tmp_path: Path) -> None:
    texts = [f"text {row}" for row in range(200)]
    path = write_json_lines(tmp_path / "a.jsonl", {"text": texts, "labels": [["a"], ["b"]] * 100})
    plain, held = read(path), read(path, "task.search.fit=each", "task.search.held_out=0.25")
    counts = {name: table.num_rows for name, table in held.splits.items()}
    assert counts == {"train": 135, "validation": 20, "held_out": 45}
    assert held.splits["validation"].equals(plain.splits["validation"])
    parts = [set(held.splits[name]["text"].to_pylist()) for name in ("train", "held_out")]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == set(plain.splits["train"]["text"].to_pylist())


@pytest.mark.parametrize(
    ("topics", "words", "told"),
    [
        (["a", "b"], (), ["data.separator"]),
        ([1, 2], (), ["int64", "not a list", "data.label=[NAME,…]"]),
        ([["a"], None], (), ["row 1", "empty one"]),
        ([["a"], ["a", None]], (), ["row 1", "without gaps"]),
        ([[1.5], [2.5]], (), ["double"]),
        ([[], []], (), ["no row has a label"]),
        ([["a"], ["b"]], ("task.labels=[a,c]",), ["row 1", "'b'", "allowed are a, c"]),
        ([[0], [2]], ("task.labels=[a,c]",), ["row 1", "0 to 1 (a, c)"]),
        ([["a"], ["b"]], ("data.separator=|",), ["data.separator='|'", "list"]),
    ],
    ids=str,
)
def test_what_is_no_list_of_labels_is_refused(
    topics: list[Any], words: tuple[str, ...], told: list[str], tmp_path: Path
) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["one", "two"], "labels": pa.array(topics)})
    with pytest.raises(DataError) as error:
        read(path, *words)
    assert all(part in str(error.value) for part in told), str(error.value)


@pytest.mark.parametrize("value", ["2", "x", ""])
def test_a_column_of_a_label_has_0_and_1(value: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", {"text": ["one", "two"], "a": ["1", value], "b": ["0", "1"]})
    with pytest.raises(DataError, match=r"column 'a'.*1 where a row has it"):
        read(path, "data.label=[a,b]")


def test_a_label_may_have_the_name_of_the_column_of_lists(tmp_path: Path) -> None:
    columns = {"text": TEXTS[:4], "labels": [1, 0, 1, 0], "other": [0, 0, 1, 1]}
    for path in (write_csv(tmp_path / "a.csv", columns), write_parquet(tmp_path / "a.parquet", columns)):
        rows = read(path, "data.label=[labels,other]")
        assert labels(rows) == dict(zip(TEXTS, [[0], [], [0, 1], [1]], strict=False))


def test_a_separator_elsewhere_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", {"text": ["one", "two"], "label": ["a", "b"]})
    made = experiment("task=classification", f"data.path={path}", "data.separator=|")
    with pytest.raises(DataError, match="task=multi_label"):
        resolve(made.data, made.task)


def test_lists_of_another_task_name_this_one(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["one", "two"], "label": [["a"], ["b"]]})
    made = experiment("task=classification", f"data.path={path}")
    with pytest.raises(DataError, match="task=multi_label"):
        resolve(made.data, made.task)
