"""The same rows have the same fingerprint, whatever the format and the names of columns."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qexp.config import Data, TextTask
from qexp.data.sources.resolve import SourceRows, resolve
from tests.support.row_files import WRITERS, Rows, write_csv, write_json_lines, write_parquet

OPEN = TextTask(
    name="own", kind="classification", text=("text",), metrics=(), evaluation={"validation": "validation"}
)
PAIR = OPEN.model_copy(update={"text": ("text", "text_pair")})
NUMBERS = TextTask(
    name="own", kind="regression", text=("text",), label_range=None, metrics=("pearson",),
    evaluation={"validation": "validation"},
)  # fmt: skip
TEXTS = ["good", 'he said "no"', "a, b; c", "ünïcode 漢字", "2020-01-01", "NA", "12", " x ", "null", "true"]


def read(path: Path, task: TextTask = OPEN, **data: Any) -> SourceRows:
    return resolve(Data(source="local", path=str(path), **data), task)


def seen(rows: SourceRows) -> tuple[Any, ...]:
    assert isinstance(rows.task, TextTask)
    tables = {split: table.to_pydict() for split, table in rows.splits.items()}
    return rows.fingerprint, rows.task.labels, rows.task.label_range, rows.task.metrics, tables


LABELS: dict[str, tuple[TextTask, list[Any]]] = {
    "names": (OPEN, ["no", "yes"] * 5),
    "ratings": (OPEN, [1, 5, 3, 2, 4] * 2),
    "ids": (OPEN, [0, 1] * 5),
    "numbers": (NUMBERS, [0.5, -3.25, 7, 1e-3, 100, 2, 3, 4, 5, 6]),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", WRITERS)
def test_formats_give_the_same_rows(name: str, labels: str, tmp_path: Path) -> None:
    task, values = LABELS[labels]
    rows = {"text": TEXTS, "label": values, "id": list(range(7, 17))}
    expected = seen(read(write_parquet(tmp_path / "first.parquet", rows), task))
    assert seen(read(WRITERS[name](tmp_path / name, rows), task)) == expected


CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])
DRAWN = st.tuples(
    st.text(CHARACTERS, max_size=12),
    st.text(CHARACTERS, max_size=4),
    st.sampled_from(["no", "yes", "perhaps"]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(DRAWN, min_size=3, max_size=8, unique_by=lambda row: row[:2]))
def test_formats_give_the_same_rows_whatever_they_hold(
    drawn: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    first, second, labels = map(list, zip(*[*drawn, ("a", "b", "no"), ("b", "a", "yes")], strict=True))
    table: Rows = {"text": first, "text_pair": second, "label": labels}
    found = []
    for name, write in WRITERS.items():
        folder = tmp_path / "round"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        found.append(seen(read(write(folder / name, table), PAIR)))
    assert found == [found[0]] * len(found)


def test_names_of_columns_do_not_count(tmp_path: Path) -> None:
    values: list[Any] = [0, 1] * 5
    plain = read(write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": values}))
    named = write_json_lines(tmp_path / "b.jsonl", {"id": ["x"] * 10, "stars": values, "review": TEXTS})
    other = read(named, columns={"text": "review", "label": "stars", "id": None})
    assert seen(plain) == seen(other)


def test_a_column_of_the_tasks_name_is_passed_over_if_another_one_is_named(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict(
        {"text": TEXTS, "label": [0] * 10, "stars": [1, 0] * 5},
        features=datasets.Features(
            text=datasets.Value("string"),
            label=datasets.ClassLabel(names=["a", "b"]),
            stars=datasets.ClassLabel(names=["low", "high"]),
        ),
    )
    rows.save_to_disk(str(tmp_path / "rows"))
    found = read(tmp_path / "rows", columns={"label": "stars"})
    assert isinstance(found.task, TextTask)
    assert found.task.labels == ("low", "high")
    assert sum(sum(table["label"].to_pylist()) for table in found.splits.values()) == 5


def test_ids_of_the_file_are_kept(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", {"text": TEXTS, "label": [0, 1] * 5, "ticket": range(100, 110)})
    found = read(path, columns={"id": "ticket"})
    ids = [each for table in found.splits.values() for each in table["id"].to_pylist()]
    assert sorted(ids) == list(range(100, 110))


TEXT_TYPES = (
    pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
)  # fmt: skip


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_arrows_types_of_text_are_one(kind: pa.DataType, tmp_path: Path) -> None:
    labels = ["no", "yes"] * 5
    pq.write_table(pa.table({"text": TEXTS, "label": labels}), tmp_path / "a.parquet")
    table = pa.table({"text": pa.array(TEXTS).cast(kind), "label": pa.array(labels).cast(kind)})
    pq.write_table(table, tmp_path / "b.parquet")
    assert seen(read(tmp_path / "a.parquet")) == seen(read(tmp_path / "b.parquet"))
