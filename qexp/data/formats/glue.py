"""Headers and names of files as the GLUE benchmark distributes them, beside those of the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.errors import DataError

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "ax": {"sentence1": "premise", "sentence2": "hypothesis",
           "Premise": "premise", "Hypothesis": "hypothesis", "Label": "label"},
    "mnli": {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"},
    "mrpc": {"#1 String": "sentence1", "#2 String": "sentence2", "Quality": "label"},
    "qqp": {"is_duplicate": "label"},
    "stsb": {"score": "label"},
}  # fmt: skip
"""The hub's name of each column that is called otherwise in GLUE's files, by data set."""
WITHOUT_HEADER: Mapping[str, Sequence[str]] = {"cola": ("source", "label", "original_label", "sentence")}
"""Columns of GLUE's files that have no header (CoLA's of training and validation)."""
INDEX = "index"
"""Column of row numbers in GLUE's files; the hub calls it ``idx``."""


def names_of(data_set: str, first: Sequence[str]) -> list[str] | None:
    """Return the columns of a file whose first line holds values; None where it is a header."""
    names = WITHOUT_HEADER.get(data_set, ())
    return list(names) if len(first) == len(names) and first[1] in ("0", "1") else None


def renamed(data_set: str, table: pa.Table) -> pa.Table:
    """Return the table with the hub's names, unless it has a column of the hub's name already."""
    new = {**COLUMNS.get(data_set, {}), INDEX: "idx"}
    present = set(table.column_names)
    return table.rename_columns(
        [new[name] if name in new and new[name] not in present else name for name in table.column_names]
    )


def of_split(path: Path, split: str, table: pa.Table) -> pa.Table:
    """Return the rows of one split of MRPC's ``msr_paraphrase_train.txt``, which holds two; else all rows.

    A file ``dev_ids.tsv`` beside it has the ids of both sentences of each row of the validation split.

    Raises:
        DataError: The validation split is wanted, and there is no such file.
    """
    if path.stem != "msr_paraphrase_train":
        return table
    files = [path.parent / name for name in ("dev_ids.tsv", "mrpc_dev_ids.tsv")]
    ids = next((file for file in files if file.is_file()), None)
    if ids is None:
        if split == "train":
            return table
        raise DataError(
            f"{path}: split {split!r} is a part of it, and no {files[0].name} beside it says which; add that "
            "file of GLUE's, or choose the test split with task.evaluation.validation=test"
        )
    listed = {tuple(line.split("\t")) for line in ids.read_text(encoding="utf-8").splitlines()}
    pairs = zip(*(table.column(name).to_pylist() for name in ("#1 ID", "#2 ID")), strict=True)
    return table.filter(pa.array([(pair in listed) == (split != "train") for pair in pairs]))
