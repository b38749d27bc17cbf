"""Local rows: the path of one's own, columns by name, the division of one file, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qexp.config import Data, TextTask, TranslationTask
from qexp.data.sources.resolve import SourceRows, resolve
from qexp.data.sources.splits import Division
from qexp.errors import DataError
from tests.conftest import experiment
from tests.support.row_files import write_csv, write_json_lines, write_parquet, write_saved

OPEN = TextTask(
    name="own", kind="classification", text=("text",), metrics=(), evaluation={"validation": "validation"}
)
ROWS: dict[str, list[Any]] = {
    "text": [f"text {number}" for number in range(40)],
    "label": ["bad", "good"] * 20,
}


def read(path: Path, task: Any = OPEN, **data: Any) -> SourceRows:
    return resolve(Data(path=str(path), **data), task)


# Where rows are.


def test_a_folder_of_ones_own_with_a_file_for_each_split(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ROWS)
    write_json_lines(tmp_path / "dev.jsonl", {"text": ["a", "b"], "label": ["good", "bad"]})
    found = read(tmp_path)
    assert {split: table.num_rows for split, table in found.splits.items()} == {"train": 40, "validation": 2}
    assert found.splits["validation"]["label"].to_pylist() == [1, 0]
    assert [sentence.partition(":")[0] for sentence in found.statements] == ["train", "validation", "classes"]
    assert str(tmp_path / "train.csv") in found.statements[0]


def test_parts_of_the_hub_are_read_in_order(tmp_path: Path) -> None:
    pq.write_table(pa.table(ROWS).slice(0, 30), tmp_path / "train-00000-of-00002.parquet")
    pq.write_table(pa.table(ROWS).slice(30), tmp_path / "train-00001-of-00002.parquet")
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", ROWS)
    assert read(tmp_path).splits["train"]["text"].to_pylist() == ROWS["text"]


def test_a_saved_dict_of_data_sets(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict(ROWS)
    both = datasets.DatasetDict(
        train=rows.filter(lambda row: row["text"] != "text 3"), test=rows.select([5, 4])
    )
    both.save_to_disk(str(tmp_path / "saved"))
    found = read(tmp_path / "saved", OPEN.model_copy(update={"evaluation": {"validation": "test"}}))
    assert found.splits["train"].num_rows == 39
    assert found.splits["test"]["text"].to_pylist() == ["text 5", "text 4"]


def test_a_root_holds_any_format(tmp_path: Path) -> None:
    (tmp_path / "OWN").mkdir()
    write_csv(tmp_path / "OWN" / "train.csv", ROWS)
    write_saved(tmp_path / "OWN" / "validation", ROWS)
    assert resolve(Data(root=str(tmp_path)), OPEN).source == "local"


def test_the_hubs_column_of_languages(tmp_path: Path) -> None:
    pairs = [{"translation": {"de": f"Hallo {each}", "en": f"Hello {each}"}} for each in range(10)]
    pq.write_table(
        pa.table({"translation": [pair["translation"] for pair in pairs]}), tmp_path / "own.parquet"
    )
    words = (f"data.path={tmp_path}/own.parquet", "data.text=en", "data.label=de", "model=transformer_tiny")
    made = experiment("task=translation", *words)
    found = resolve(made.data, made.task)
    assert isinstance(found.task, TranslationTask)
    assert found.splits["train"].column_names == ["id", "source", "target"]
    assert sum(table.num_rows for table in found.splits.values()) == 10


# One file.


def test_one_file_is_divided_by_its_texts(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "own.csv", ROWS)
    found = read(path)
    assert {split: table.num_rows for split, table in found.splits.items()} == {"train": 36, "validation": 4}
    assert (
        "36 train, 4 validation" in found.statements[0] and "data.validation_share=0.1" in found.statements[0]
    )
    again = read(write_csv(tmp_path / "turned.csv", {name: values[::-1] for name, values in ROWS.items()}))
    held = [set(each.splits["validation"]["text"].to_pylist()) for each in (found, again)]
    assert held[0] == held[1]
    other = read(path, split_seed=1)
    assert set(other.splits["validation"]["text"].to_pylist()) != held[0]
    assert read(path, validation_share=0.5).splits["train"].num_rows == 20


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_equal_texts_stay_together_and_no_split_is_empty(share: float) -> None:
    table = pa.table({"a": ["x", "y", "z"] * 4, "b": ["1"] * 12})
    parts, _ = Division(("train", "validation"), share, seed=0).apply(table, ("a", "b"), "rows")
    train, validation = (set(part["a"].to_pylist()) for part in parts.values())
    assert train and validation and not train & validation
    assert sum(part.num_rows for part in parts.values()) == 12


def test_the_border_of_two_texts_counts() -> None:
    table = pa.table({"a": ["ab", "a"], "b": ["c", "bc"]})
    parts, _ = Division(("train", "validation"), 0.5, seed=0).apply(table, ("a", "b"), "rows")
    assert [part.num_rows for part in parts.values()] == [1, 1]


# What is refused.

BAD: dict[str, tuple[Callable[[Path], Path], dict[str, Any], list[str]]] = {
    "no such file": (lambda folder: folder / "own.csv", {}, ["data.path=", "own.csv", "no such file"]),
    "no format": (
        lambda folder: write_csv(folder / "own.xlsx", ROWS),
        {},
        ["data.path=", "own.xlsx", ".xlsx", ".csv, .tsv"],
    ),
    "empty file": (
        lambda folder: text(folder / "own.csv", b""),
        {},
        ["own.csv (0 bytes)", "Empty", "header"],
    ),
    "header only": (lambda folder: text(folder / "own.csv", b"text,label\n"), {}, ["own.csv", "zero rows"]),
    "ragged": (
        lambda folder: text(folder / "own.csv", b"text,label\na,1\nb,c,2\n"),
        {},
        ["own.csv", "Expected 2 columns, got 3", "same number of values"],
    ),
    "latin 1": (
        lambda folder: text(folder / "own.csv", "text,label\nschön,1\nb,2\n".encode("latin1")),
        {},
        ["own.csv", "not UTF-8", "iconv -f latin1 -t utf8 own.csv"],
    ),
    "latin 1 in JSON": (
        lambda folder: text(folder / "own.jsonl", '{"text": "schön", "label": 1}\n'.encode("latin1")),
        {},
        ["own.jsonl", "not UTF-8", "iconv"],
    ),
    "mixed types": (
        lambda folder: text(folder / "own.jsonl", b'{"text": "a", "label": 1}\n{"text": "b", "label": "x"}'),
        {},
        ["own.jsonl", "label", "changed from number to string in row 1", "a type for each column"],
    ),
    "mixed types in an array": (
        lambda folder: text(folder / "own.json", b'[{"text": "a", "label": 1}, {"text": "b", "label": "x"}]'),
        {},
        ["own.json", "array of rows", "a type for each column"],
    ),
    "not JSON": (lambda folder: text(folder / "own.jsonl", b"text,label\n"), {}, ["own.jsonl", "JSON lines"]),
    "no rows in JSON": (
        lambda folder: text(folder / "own.json", b"[1, 2]"),
        {},
        ["own.json", "array of objects"],
    ),
    "no parquet": (
        lambda folder: text(folder / "own.parquet", b"PAR1"),
        {},
        ["own.parquet (4 bytes)", "again"],
    ),
    "no saved folder": (
        lambda folder: text(folder / "own" / "state.json", b"{}").parent,
        {},
        ["own", "save_to_disk", "save it again"],
    ),
    "missing column": (
        lambda folder: write_csv(folder / "own.csv", {"txet": ["a", "b"], "label": [0, 1]}),
        {},
        ["own.csv", "no column 'text'", "txet, label", "data.columns={text: NAME}", "did you mean 'txet'?"],
    ),
    "misspelled column": (
        lambda folder: write_csv(folder / "own.csv", ROWS),
        {"columns": {"label": "lable"}},
        ["data.label=lable", "no column 'lable'", "did you mean 'label'?"],
    ),
    "unknown column": (
        lambda folder: write_csv(folder / "own.csv", ROWS),
        {"columns": {"texts": "text"}},
        ["data.columns.texts=text", "task=own", "text, label, id"],
    ),
    "column twice": (
        lambda folder: text(folder / "own.csv", b"text,label,text\na,1,b\n"),
        {},
        ["2 columns", "'text'", "keep one"],
    ),
    "one class": (
        lambda folder: write_csv(folder / "own.csv", {**ROWS, "label": ["good"] * 40}),
        {},
        ["column 'label'", "all 40 rows have the class good", "data.label=NAME"],
    ),
    "missing label": (
        lambda folder: write_csv(folder / "own.csv", {**ROWS, "label": ["", *ROWS["label"][1:]]}),
        {},
        ["column 'label', row 0", "every row needs a label"],
    ),
    "numbers as classes": (
        lambda folder: write_csv(folder / "own.csv", {**ROWS, "label": [each / 4 for each in range(40)]}),
        {},
        ["column 'label', row 1", "0.25", "task=regression"],
    ),
    "names in case only": (
        lambda folder: write_csv(folder / "own.csv", {**ROWS, "label": ["Good", "good"] * 20}),
        {},
        ["own.csv", "labels", "name of its own"],
    ),
    "ids twice": (
        lambda folder: write_csv(folder / "own.csv", {**ROWS, "id": [1, 2, 3, 2, *range(4, 40)]}),
        {},
        ["column 'id', row 3", "2 (1 such rows of 40)", "data.columns={id: null}"],
    ),
    "one text": (
        lambda folder: write_csv(folder / "own.csv", {**ROWS, "text": ["a"] * 40}),
        {},
        ["40 rows with one text"],
    ),
}


def text(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    write, data, words = BAD[case]
    with pytest.raises(DataError) as error:
        read(write(tmp_path), **data)
    told = str(error.value)
    assert "\n" not in told
    for word in words:
        assert word in told


def test_a_class_that_training_has_not_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ROWS)
    write_csv(tmp_path / "validation.csv", {"text": ["a", "b"], "label": ["good", "great"]})
    with pytest.raises(DataError, match=r"validation\.csv.*row 1.*'great'.*0 \(bad\), 1 \(good\)"):
        read(tmp_path)


def test_one_file_serves_two_splits_only(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "own.csv", {"premise": ["a"], "hypothesis": ["b"], "label": [0]})
    with pytest.raises(DataError, match=r"one file for the splits train, validation_matched"):
        read(path, experiment("task=mnli").task)


@pytest.mark.parametrize("field", ["path", "columns"])
@pytest.mark.parametrize("source", ["hub", "sample"])
def test_files_are_for_local_rows(field: str, source: str, tmp_path: Path) -> None:
    value: Any = str(tmp_path) if field == "path" else {"text": "a"}
    with pytest.raises(ValueError, match=rf"{field}=.*with data={source}.*data=local"):
        Data.model_validate({"source": source, field: value})
