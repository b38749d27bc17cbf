"""Tests that rows are independent of source and file layout, and rejected with a location and a reason."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.config import Data, TextTask
from qexp.data import hub
from qexp.data.sources import resolve
from qexp.errors import DataError
from tests.conftest import experiment

PAIRS = TextTask(
    name="mrpc",
    kind="classification",
    text=("sentence1", "sentence2"),
    labels=("no", "yes"),
    metrics=("accuracy",),
    evaluation={"validation": "validation"},
)
SCORES = TextTask(
    name="stsb",
    kind="regression",
    text=("sentence1", "sentence2"),
    label_range=(0, 5),
    metrics=("pearson",),
    evaluation={"validation": "validation"},
)
ROWS: dict[str, list[Any]] = {
    "sentence1": ["a", "", "ünïcode 漢字", "same"],
    "sentence2": ["b", "x y", "", "same"],
    "label": [0, 1, 1, 0],
    "idx": [10, 11, 15, 19],
}
TABLE = pa.table(ROWS)


def write(root: Path, table: pa.Table, task: str = "mrpc", **options: Any) -> Data:
    """A local folder whose two splits hold the table."""
    (root / task).mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        pq.write_table(table, root / task / f"{split}.parquet", **options)
    return Data(source="local", root=str(root))


def replaced(**columns: Any) -> pa.Table:
    return pa.table({**ROWS, **columns})


@pytest.fixture
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(resolve.ROOT_VARIABLE, raising=False)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def glue(task: str, splits: list[str]) -> dict[str, pa.Table]:
        raise DataError("no network")

    monkeypatch.setattr(hub, "tables", glue)


@pytest.fixture
def built_in_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("qexp.data.synthetic")
    module.sample = lambda task, seed=0: {"train": TABLE, "validation": TABLE}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "qexp.data.synthetic", module)


def test_rows_come_out_in_one_form(tmp_path: Path) -> None:
    rows = resolve.resolve(write(tmp_path, TABLE), PAIRS)
    assert rows.source == "local" and set(rows.splits) == {"train", "validation"}
    table = rows.splits["train"]
    assert table.schema == pa.schema(
        {"id": pa.int64(), "sentence1": pa.string(), "sentence2": pa.string(), "label": pa.int64()}
    )
    assert table.to_pydict() == {
        "id": ROWS["idx"],
        **{name: ROWS[name] for name in ("sentence1", "sentence2", "label")},
    }


def test_rows_without_an_id_get_their_number(tmp_path: Path) -> None:
    rows = resolve.resolve(write(tmp_path, TABLE.drop_columns(["idx"])), PAIRS)
    assert rows.splits["train"].column("id").to_pylist() == [0, 1, 2, 3]


def test_label_column_is_renamed(tmp_path: Path) -> None:
    table = TABLE.rename_columns(["sentence1", "sentence2", "gold", "idx"])
    rows = resolve.resolve(write(tmp_path, table), PAIRS.model_copy(update={"label": "gold"}))
    assert rows.splits["train"].column("label").to_pylist() == ROWS["label"]


def test_only_the_needed_splits_are_read(tmp_path: Path) -> None:
    data = write(tmp_path, TABLE)
    (tmp_path / "mrpc" / "test.parquet").write_bytes(b"not parquet")
    assert set(resolve.resolve(data, PAIRS).splits) == {"train", "validation"}


def test_root_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, TABLE)
    monkeypatch.setenv(resolve.ROOT_VARIABLE, str(tmp_path))
    assert resolve.resolve(Data(source="local"), PAIRS).source == "local"


# The fingerprint.

LARGE = pa.large_string()
LAYOUTS: dict[str, tuple[pa.Table, dict[str, Any]]] = {
    "compression": (TABLE, {"compression": "zstd"}),
    "row groups": (TABLE, {"row_group_size": 1}),
    "no dictionary": (TABLE, {"use_dictionary": False}),
    "large strings": (replaced(sentence1=pa.array(ROWS["sentence1"], LARGE)), {}),
    "categories": (replaced(sentence2=pa.array(ROWS["sentence2"]).dictionary_encode()), {}),
    "int32 labels": (replaced(label=pa.array(ROWS["label"], pa.int32())), {}),
    "uint8 labels": (replaced(label=pa.array(ROWS["label"], pa.uint8())), {}),
    "an extra column": (replaced(extra=[{"a": 1}] * 4), {}),
    "another column order": (TABLE.select(["label", "idx", "sentence2", "sentence1"]), {}),
    "no ids": (TABLE.drop_columns(["idx"]), {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fingerprint_ignores_the_layout(layout: str, tmp_path: Path) -> None:
    table, options = LAYOUTS[layout]
    plain = resolve.resolve(write(tmp_path / "plain", TABLE), PAIRS)
    other = resolve.resolve(write(tmp_path / "other", table, **options), PAIRS)
    assert plain.fingerprint == other.fingerprint


def test_fingerprint_ignores_the_width_of_numbers(tmp_path: Path) -> None:
    values = [3.8, 0.0, 5.0, -0.0]
    marks = [
        resolve.resolve(write(tmp_path / str(i), replaced(label=array), "stsb"), SCORES).fingerprint
        for i, array in enumerate((pa.array(values, pa.float32()), pa.array(values, pa.float64())))
    ]
    assert marks[0] == marks[1]


CHANGES = {
    "a label": replaced(label=[0, 1, 1, 1]),
    "a text": replaced(sentence1=["A", *ROWS["sentence1"][1:]]),
    "the order": TABLE.take([1, 0, 2, 3]),
    "the number of rows": TABLE.slice(0, 3),
    "the border of two rows": replaced(sentence2=["bx", " y", "", "same"]),
    "swapped columns": TABLE.rename_columns(["sentence2", "sentence1", "label", "idx"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_fingerprint_sees_every_change(change: str, tmp_path: Path) -> None:
    plain = resolve.resolve(write(tmp_path / "plain", TABLE), PAIRS)
    other = resolve.resolve(write(tmp_path / "other", CHANGES[change]), PAIRS)
    assert plain.fingerprint != other.fingerprint


TEXTS = st.lists(st.tuples(st.text(max_size=4), st.integers(0, 1)), min_size=1, max_size=6)


def table_of(rows: list[tuple[str, int]], cuts: list[int]) -> pa.Table:
    table = pa.table({"id": range(len(rows)), "text": [r[0] for r in rows], "label": [r[1] for r in rows]})
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    return pa.concat_tables([table.slice(a, b - a) for a, b in itertools.pairwise(edges)] or [table])


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS, st.lists(st.integers(0, 6), max_size=3))
def test_fingerprint_is_the_identity_of_the_rows(
    one: list[tuple[str, int]], two: list[tuple[str, int]], cuts: list[int]
) -> None:
    mark = resolve.fingerprint({"train": table_of(one, [])})
    assert mark == resolve.fingerprint({"train": table_of(one, cuts)})
    assert (mark == resolve.fingerprint({"train": table_of(two, cuts)})) == (one == two)


@pytest.mark.usefixtures("built_in_sample")
def test_sample_never_passes_for_real_rows(tmp_path: Path) -> None:
    generated = resolve.resolve(Data(source="sample"), PAIRS)
    assert generated.source == "sample"
    assert generated.fingerprint != resolve.resolve(write(tmp_path, TABLE), PAIRS).fingerprint


# Bad rows and files.

BAD_TABLES: dict[str, tuple[pa.Table, list[str]]] = {
    "zero rows": (TABLE.slice(0, 0), ["zero rows"]),
    "no text column": (TABLE.drop_columns(["sentence2"]), ["'sentence2'", "sentence1, label, idx"]),
    "no label column": (TABLE.drop_columns(["label"]), ["'label'", "data.columns={label: NAME}"]),
    "column twice": (TABLE.append_column("label", TABLE["label"]), ["2 columns", "'label'"]),
    "text is a number": (replaced(sentence1=[1, 2, 3, 4]), ["'sentence1'", "int64", "string"]),
    "text is bytes": (replaced(sentence1=[b"a"] * 4), ["'sentence1'", "binary"]),
    "null text": (
        replaced(sentence2=["a", None, None, "d"]),
        ["'sentence2', row 1", "None (2 such rows of 4)"],
    ),
    "all null text": (replaced(sentence2=pa.nulls(4)), ["'sentence2', row 0", "4 such rows"]),
    "null label": (replaced(label=[0, 1, None, 1]), ["'label', row 2", "None (1 such rows of 4)"]),
    "hidden labels": (replaced(label=[-1] * 4), ["row 0", "-1", "0 (no), 1 (yes)", "hidden test label"]),
    "label too large": (replaced(label=[0, 2, 1, 7]), ["row 1", ": 2 (2 such", "0 (no), 1 (yes)"]),
    "label huge": (
        replaced(label=pa.array([0, 2**63 + 1, 0, 0], pa.uint64())),
        ["row 1", "9223372036854775809"],
    ),
    "label an unknown name": (
        replaced(label=["no", "yes", "maybe", "no"]),
        ["row 2", "'maybe'", "0 (no), 1 (yes)"],
    ),
    "label an empty name": (replaced(label=["no", "yes", " ", "no"]), ["row 2", "every row needs a label"]),
    "label a fraction": (replaced(label=[0.0, 1.0, 0.5, 1.0]), ["row 2", "0.5", "integer"]),
    "label a truth value": (
        replaced(label=[True, False, True, False]),
        ["row 0", "'true'", "0 (no), 1 (yes)"],
    ),
    "label a list": (replaced(label=[[0], [1], [0], [1]]), ["list", "cast"]),
    "an id twice": (replaced(idx=[1, 2, 1, 3]), ["'idx'", "row 2", "data.columns={id: null}"]),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_rows_are_refused_with_their_place(case: str, tmp_path: Path) -> None:
    table, words = BAD_TABLES[case]
    with pytest.raises(DataError) as error:
        resolve.resolve(write(tmp_path, table), PAIRS)
    for word in [str(tmp_path / "mrpc" / "train.parquet"), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0.0, float("nan"), 1.0, 2.0], ["row 1", "nan", "0 to 5"]),
        ([0.0, 1.0, float("inf"), 2.0], ["row 2", "inf"]),
        ([0.0, 1.0, 2.0, 5.01], ["row 3", "5.01", "0 to 5"]),
        ([-1.0, 1.0, -1.0, 1e300], ["row 0", "3 such rows of 4"]),
        (["1", "2", "three", "4"], ["string", "number"]),
    ],
)
def test_bad_numbers_are_refused(labels: list[Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        resolve.resolve(write(tmp_path, replaced(label=labels), "stsb"), SCORES)
    assert all(word in str(error.value) for word in words)


def test_integers_are_fine_as_numbers(tmp_path: Path) -> None:
    rows = resolve.resolve(write(tmp_path, replaced(label=[0, 5, 1, 2]), "stsb"), SCORES)
    assert rows.splits["train"]["label"].type == pa.float64()
    assert rows.splits["train"]["label"].to_pylist() == [0.0, 5.0, 1.0, 2.0]


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    offsets, data = np.arange(5, dtype=np.int32), b"ab\xffd"
    broken = pa.StringArray.from_buffers(4, pa.py_buffer(offsets), pa.py_buffer(data))
    with pytest.raises(DataError, match=r"'sentence1'.*UTF-?8"):
        resolve.resolve(write(tmp_path, replaced(sentence1=broken)), PAIRS)


@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_unreadable_files_are_refused(damage: str, tmp_path: Path) -> None:
    data = write(tmp_path, TABLE)
    path = tmp_path / "mrpc" / "validation.parquet"
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"sentence,label\n"}[damage])
    with pytest.raises(DataError) as error:
        resolve.resolve(data, PAIRS)
    assert str(path) in str(error.value) and "not a readable parquet file" in str(error.value)


def test_missing_split_lists_what_is_there(tmp_path: Path) -> None:
    data = write(tmp_path, TABLE)
    (tmp_path / "mrpc" / "validation.parquet").unlink()
    with pytest.raises(
        DataError, match=r"mrpc: no file of split 'validation'.*the folder holds train\.parquet"
    ):
        resolve.resolve(data, PAIRS)


# Sources.


@pytest.mark.usefixtures("no_root")
def test_local_without_a_folder_names_the_ways() -> None:
    with pytest.raises(DataError, match=r"QEXP_DATA.*data=local data\.root=DIR.*data=hub.*data=sample"):
        resolve.resolve(Data(source="local"), PAIRS)


def test_local_without_the_task_names_the_ways(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder 'mrpc'.*data=hub.*data=sample"):
        resolve.resolve(Data(source="local", root=str(tmp_path)), PAIRS)


@pytest.mark.usefixtures("no_hub")
def test_hub_out_of_reach_names_the_ways() -> None:
    with pytest.raises(DataError, match=r"no network.*data=local data\.root=DIR.*data=sample"):
        resolve.resolve(Data(source="hub"), PAIRS)


@pytest.mark.usefixtures("no_hub")
def test_auto_prefers_the_local_folder(tmp_path: Path) -> None:
    write(tmp_path, TABLE)
    assert resolve.resolve(Data(root=str(tmp_path)), PAIRS, sweep=True).source == "local"


def test_auto_takes_the_hub_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "tables", lambda task, splits: dict.fromkeys(splits, TABLE))
    assert resolve.resolve(Data(root=str(tmp_path)), PAIRS, sweep=True).source == "hub"


@pytest.mark.usefixtures("no_root", "no_hub", "built_in_sample")
def test_auto_falls_back_on_the_sample_and_says_so() -> None:
    rows = resolve.resolve(Data(), PAIRS)
    assert rows.source == "sample"
    assert "no network" in rows.notes[0] and "QEXP_DATA" in rows.notes[0]


@pytest.mark.usefixtures("no_root", "no_hub", "built_in_sample")
def test_a_sweep_never_falls_back_on_the_sample() -> None:
    with pytest.raises(DataError, match="sweep never falls back on the sample"):
        resolve.resolve(Data(), PAIRS, sweep=True)
    assert resolve.resolve(Data(source="sample"), PAIRS, sweep=True).source == "sample"


@pytest.mark.usefixtures("no_hub", "built_in_sample")
def test_auto_does_not_pass_over_bad_rows(tmp_path: Path) -> None:
    write(tmp_path, replaced(label=[9] * 4))
    with pytest.raises(DataError, match="row 0"):
        resolve.resolve(Data(root=str(tmp_path)), PAIRS)


@pytest.mark.usefixtures("built_in_sample")
def test_sample_without_the_split() -> None:
    task = PAIRS.model_copy(update={"evaluation": {"m": "validation_matched"}})
    with pytest.raises(DataError, match="no split 'validation_matched'; it has train, validation"):
        resolve.resolve(Data(source="sample"), task)


# Splits of another data set.

DIAGNOSTIC = PAIRS.model_copy(
    update={"name": "ax", "train": "mrpc/train", "evaluation": {"a": "test", "b": "mrpc/validation"}}
)


def test_local_splits_of_another_data_set(tmp_path: Path) -> None:
    data = write(tmp_path, TABLE)
    with pytest.raises(DataError, match=r"has no folder 'ax'"):
        resolve.resolve(data, DIAGNOSTIC)
    (tmp_path / "ax").mkdir()
    pq.write_table(TABLE.slice(0, 3), tmp_path / "ax" / "test.parquet")
    rows = resolve.resolve(data, DIAGNOSTIC)
    counts = {split: table.num_rows for split, table in rows.splits.items()}
    assert counts == {"mrpc/train": 4, "test": 3, "mrpc/validation": 4}
    (tmp_path / "mrpc" / "train.parquet").unlink()
    with pytest.raises(DataError, match=r"mrpc: no file of split 'train'"):
        resolve.resolve(data, DIAGNOSTIC)


def test_hub_splits_of_another_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def glue(task: str, splits: list[str]) -> dict[str, pa.Table]:
        asked[task] = splits
        return dict.fromkeys(splits, TABLE if task == "mrpc" else replaced(label=[-1] * 4))

    monkeypatch.setattr(hub, "tables", glue)
    with pytest.raises(DataError, match=r"glue, ax, split test.*hidden.*data\.root/ax/<split>\.parquet"):
        resolve.resolve(Data(source="hub"), DIAGNOSTIC)
    assert asked == {"mrpc": ["train", "validation"], "ax": ["test"]}
    twice = PAIRS.model_copy(update={"evaluation": {"a": "validation", "b": "mrpc/validation"}})
    assert set(resolve.resolve(Data(source="hub"), twice).splits) == {
        "train",
        "validation",
        "mrpc/validation",
    }


def test_a_column_of_languages_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    pairs = [{"translation": {"de": "Hallo", "en": "Hello"}}, {"translation": {"de": "Welt", "en": "World"}}]
    monkeypatch.setattr(hub, "_cached", lambda name, config, splits: None)
    monkeypatch.setattr(hub, "obstacle", lambda: None)
    asked = []

    def load(name: str, config: str, split: list[str]) -> list[Any]:
        asked.append((name, config, split))
        return [datasets.Dataset.from_list(pairs) for _ in split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = resolve.resolve(Data(source="hub"), experiment("task=wmt14_en_de", "model=transformer_base").task)
    assert asked == [("wmt/wmt14", "de-en", ["train", "test"])]
    assert rows.splits["test"].to_pydict() == {
        "id": [0, 1],
        "en": ["Hello", "World"],
        "de": ["Hallo", "Welt"],
    }


def test_sample_splits_of_another_data_set() -> None:
    task = PAIRS.model_copy(update={"train": "rte/train", "evaluation": {"a": "rte/test"}})
    with pytest.raises(DataError, match=r"the sample of rte has no split 'test'; it has train, validation"):
        resolve.resolve(Data(source="sample"), task)
    task = task.model_copy(update={"evaluation": {"a": "validation"}})
    rows = resolve.resolve(Data(source="sample"), task)
    assert {split: table.num_rows for split, table in rows.splits.items()} == {
        "rte/train": 1600,
        "validation": 400,
    }


# The hub itself.


def fake_session(monkeypatch: pytest.MonkeyPatch, head: Any) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_session", lambda: SimpleNamespace(head=head))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def test_obstacle_does_not_wait_for_a_silent_network(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_session(monkeypatch, lambda url, timeout: time.sleep(5))
    start = time.perf_counter()
    assert "no answer within 0.1 s" in str(hub.obstacle(0.1))
    assert time.perf_counter() - start < 3


def test_obstacle_reads_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_session(monkeypatch, lambda url, timeout: SimpleNamespace(status_code=200))
    assert hub.obstacle() is None
    fake_session(monkeypatch, lambda url, timeout: SimpleNamespace(status_code=503))
    assert "503" in str(hub.obstacle())


def cached_glue(folder: Path) -> None:
    """What ``load_dataset("nyu-mll/glue", "mrpc")`` leaves in the cache of datasets."""
    from datasets.packaged_modules.parquet.parquet import Parquet

    write(folder / "files", TABLE)
    builder = Parquet(
        cache_dir=str(folder / "cache"),
        dataset_name="glue",
        config_name="mrpc",
        hash="0123",
        data_files={s: [str(folder / "files" / "mrpc" / f"{s}.parquet")] for s in ("train", "validation")},
    )
    builder.download_and_prepare()
    (made,) = (folder / "cache" / "glue").glob("mrpc-*")
    made.rename(folder / "cache" / "glue" / "mrpc")
    (folder / "cache" / "glue").rename(folder / "cache" / "nyu-mll___glue")


def test_hub_rows_from_the_cache_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    cached_glue(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hub, "obstacle", lambda: pytest.fail("asked the network"))
    rows = resolve.resolve(Data(source="hub"), PAIRS)
    assert rows.source == "hub"
    assert rows.fingerprint == resolve.resolve(write(tmp_path, TABLE), PAIRS).fingerprint


def test_hub_rows_from_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(path: str, name: str, split: list[str]) -> list[datasets.Dataset]:
        assert (path, name) == ("nyu-mll/glue", "mrpc")
        return [datasets.Dataset(TABLE) for _ in split]

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(hub, "obstacle", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert resolve.resolve(Data(source="hub"), PAIRS).splits["train"].num_rows == 4


def test_hub_refusal_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(*args: Any, **options: Any) -> None:
        raise RuntimeError("moved away")

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(hub, "obstacle", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"moved away.*data=sample"):
        resolve.resolve(Data(source="hub"), PAIRS)


def test_hub_out_of_reach_answers_within_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(hub, "obstacle", functools.partial(hub.obstacle, 0.1))
    fake_session(monkeypatch, lambda url, timeout: time.sleep(5))
    start = time.perf_counter()
    with pytest.raises(DataError, match="out of reach"):
        resolve.resolve(Data(source="hub"), PAIRS)
    assert time.perf_counter() - start < 5


# Real rows.

REAL = {
    "cola": (("sentence",), ("unacceptable", "acceptable"), {"train": 8551, "validation": 1043}),
    "mrpc": (("sentence1", "sentence2"), ("no", "yes"), {"train": 3668, "validation": 408}),
    "stsb": (("sentence1", "sentence2"), (), {"train": 5749, "validation": 1500}),
    "mnli": (
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        {"train": None, "validation_matched": 9815, "validation_mismatched": 9832},
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_rows(name: str) -> None:
    root = os.environ.get(resolve.ROOT_VARIABLE)
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"set {resolve.ROOT_VARIABLE} to a folder with {name}/<split>.parquet")
    text, labels, counts = REAL[name]
    task = TextTask(
        name=name,
        kind="classification" if labels else "regression",
        text=text,
        labels=labels,
        label_range=(0, 1) if labels else (0, 5),
        metrics=("accuracy",) if labels else ("pearson",),
        evaluation={split: split for split in counts if split != "train"},
    )
    rows = resolve.resolve(Data(source="local", root=root), task)
    for split, count in counts.items():
        assert count is None or rows.splits[split].num_rows == count
    assert rows.splits["train"].num_rows > 0


@pytest.mark.parametrize("variable", [False, True], ids=["data.root", "QEXP_DATA"])
def test_a_root_that_is_no_folder_is_never_passed_over(
    variable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path / "typo")
    if variable:
        monkeypatch.setenv("QEXP_DATA", root)
    name = "QEXP_DATA" if variable else r"data\.root"
    with pytest.raises(DataError, match=rf"{name}=.*typo: no such folder"):
        resolve.resolve(Data(root=None if variable else root), PAIRS)
