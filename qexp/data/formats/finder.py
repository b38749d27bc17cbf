"""Which files of a folder hold a split, by the names that people give them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from qexp.data.formats.conll import is_conll, read_conll
from qexp.data.formats.delimited import read_csv, read_tsv
from qexp.data.formats.json_files import read_json, read_json_lines
from qexp.data.formats.parquet import read_parquet
from qexp.data.formats.request import Reader
from qexp.data.formats.saved import is_saved, read_saved
from qexp.data.sources.class_names import plain
from qexp.errors import DataError

READERS: Mapping[str, Reader] = {
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".conll": read_conll,
}
"""Reader of each format, by suffix."""
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("training", "msr_paraphrase_train"),
    "validation": ("dev", "valid", "val", "msr_paraphrase_train"),
    "validation_matched": ("dev_matched",),
    "validation_mismatched": ("dev_mismatched",),
    "test": ("msr_paraphrase_test",),
}
"""Names of splits in files beside the hub's, the preferred ones first."""
_NUMBERED = r"(-\d{5}-of-(?P<all>\d{5})|-v\d+\.\d+)?"
"""What may follow the name of a split: the number of a part on the hub, or SQuAD's version."""


def reader_of(path: Path) -> Reader | None:
    """Return the reader of a file, or of a folder of ``save_to_disk``; None if there is none."""
    if path.is_dir():
        return read_saved if is_saved(path) else None
    if path.suffix.lower() == ".txt" and path.stem.startswith("msr_paraphrase_"):
        return read_tsv  # MRPC's own files
    if path.suffix.lower() == ".txt" and is_conll(path):
        return read_conll
    return READERS.get(path.suffix.lower())


JUDGMENTS = ("qrels", "default")
"""Folders with a file of judgments for each split, as BEIR and MTEB call them."""


def files_of(folder: Path, split: str) -> tuple[Path, ...]:
    """Return the file of a split in a folder, or its parts in order; empty if there is none.

    ``qrels/<split>`` is searched in :data:`JUDGMENTS` and then in the folder itself, and a table also in a
    folder of its own name, such as ``corpus/corpus-00000-of-00001.parquet``.

    Raises:
        DataError: There are files of several formats, or parts are missing.
    """
    of, _, name = split.rpartition("/")
    folders = [folder / each for each in JUDGMENTS if of] + [folder] + [folder / split] * (not of)
    return next((found for each in folders if (found := _files_in(each, name))), ())


def _files_in(folder: Path, split: str) -> tuple[Path, ...]:
    for name in (split, *OTHER_NAMES.get(split, ())):
        pattern = re.compile(re.escape(name) + _NUMBERED, re.IGNORECASE)
        matches = [(path, match) for path in readable(folder) if (match := pattern.fullmatch(_stem(path)))]
        if matches:
            _refuse_several(folder, split, matches)
            return tuple(path for path, _ in matches)
    return ()


def readable(folder: Path) -> list[Path]:
    """Return what a folder, and ``data`` in it, holds of rows, by name."""
    folders = [folder, folder / "data"]
    entries = sorted(entry for each in folders if each.is_dir() for entry in each.iterdir())
    return [entry for entry in entries if entry.name[0] != "." and reader_of(entry) is not None]


def only_rows(path: Path) -> tuple[Path, ...]:
    """Return the files of a path that holds one table, which no name assigns to an evaluation split."""
    if reader_of(path) is not None:
        return (path,)
    entries = readable(path) if path.is_dir() else []
    if len(entries) == 1 or (entries and tuple(entries) == files_of(path, "train")):
        return tuple(entries)
    return ()


def content_of(folder: Path) -> str:
    """Return the names of all entries of a folder, for error messages."""
    return ", ".join(sorted(entry.name for entry in folder.iterdir())) or "nothing"


def names_of(split: str) -> str:
    """Return the names that a file of a split may have, for error messages."""
    stems = ", ".join((split, *OTHER_NAMES.get(split, ())))
    return f"{stems}, with {', '.join(READERS)}, or a folder of save_to_disk"


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _refuse_several(folder: Path, split: str, matches: list[tuple[Path, re.Match[str]]]) -> None:
    names = ", ".join(path.name for path, _ in matches)
    counts = {match["all"] for _, match in matches}
    if len(counts) == 1 and (count := next(iter(counts))) is not None:
        if len(matches) != int(count):
            raise DataError(
                f"{folder}: split {split!r} has {len(matches)} of {int(count)} parts: {names}; add the others"
            )
    elif len(matches) > 1:
        raise DataError(f"{folder}: several files of split {split!r}: {names}; keep one of them")


def folder_of(root: Path, data_set: str) -> Path | None:
    """Return the folder of a data set, also as GLUE spells it (``SST-2`` for ``sst2``); None if none."""
    if (root / data_set).is_dir():
        return root / data_set
    alike = [each for each in root.iterdir() if each.is_dir() and plain(each.name) == plain(data_set)]
    return alike[0] if len(alike) == 1 else None
