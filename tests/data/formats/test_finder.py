"""The files of a split are found by the names that people give them, and never guessed among several."""

from __future__ import annotations

from pathlib import Path

import pytest

from qexp.data.formats import finder
from qexp.errors import DataError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("train", "train.parquet"),
        ("train", "train.csv"),
        ("train", "TRAIN.JSONL"),
        ("train", "train-v1.1.json"),
        ("train", "data/train.csv"),
        ("validation", "dev-v2.0.json"),
        ("validation", "dev.tsv"),
        ("validation", "valid.csv"),
        ("validation", "val.jsonl"),
        ("validation_matched", "dev_matched.tsv"),
        ("validation", "validation/state.json"),
        ("test", "test.ndjson"),
        ("test", "msr_paraphrase_test.txt"),
    ],
)
def test_names_of_a_split(split: str, name: str, tmp_path: Path) -> None:
    touch(tmp_path, name, "README.md", "train_log.txt", "validation_scores.csv", "train.parquet.lock")
    (found,) = finder.files_of(tmp_path, split)
    assert found == (tmp_path / name if "state" not in name else tmp_path / "validation")


def test_parts_are_in_order_and_complete(tmp_path: Path) -> None:
    names = [f"train-{part:05}-of-00003.parquet" for part in range(3)]
    touch(tmp_path, *reversed(names), "validation-00000-of-00001.parquet")
    assert [path.name for path in finder.files_of(tmp_path, "train")] == names
    assert len(finder.files_of(tmp_path, "validation")) == 1
    (tmp_path / names[1]).unlink()
    with pytest.raises(DataError, match=r"'train' has 2 of 3 parts"):
        finder.files_of(tmp_path, "train")


def test_the_hubs_name_comes_before_others(tmp_path: Path) -> None:
    touch(tmp_path, "validation.csv", "dev.csv")
    assert finder.files_of(tmp_path, "validation") == (tmp_path / "validation.csv",)


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "train.parquet"),
        ("train.csv", "train-00000-of-00001.parquet"),
        ("train.csv", "data/train.csv"),
    ],
)
def test_several_files_of_a_split_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError, match=r"several files of split 'train': .*train.*keep one"):
        finder.files_of(tmp_path, "train")


@pytest.mark.parametrize(
    ("names", "path", "count"),
    [
        (["reviews.csv"], "reviews.csv", 1),
        (["reviews.csv", "README.md"], ".", 1),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], ".", 2),
        (["train.csv"], ".", 1),
        (["train.csv", "dev.csv"], ".", 0),
        (["a.csv", "b.csv"], ".", 0),
        (["saved/state.json", "saved/data-00000-of-00001.arrow"], "saved", 1),
        ([], ".", 0),
    ],
)
def test_one_table_without_an_evaluation_split(
    names: list[str], path: str, count: int, tmp_path: Path
) -> None:
    touch(tmp_path, *names)
    assert len(finder.only_rows(tmp_path / path)) == count


def test_folders_are_known_by_letters_and_digits(tmp_path: Path) -> None:
    for name in ("SST-2", "CoLA", "mrpc", "MRPC"):
        (tmp_path / name).mkdir()
    assert finder.folder_of(tmp_path, "sst2") == tmp_path / "SST-2"
    assert finder.folder_of(tmp_path, "mrpc") == tmp_path / "mrpc"
    assert finder.folder_of(tmp_path, "qqp") is None
