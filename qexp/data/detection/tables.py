"""Rows of a file or folder before anything is known of their columns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.parquet as pq  # type: ignore[import-untyped, unused-ignore]

from qexp.data.formats import finder
from qexp.data.formats.conll import read_conll
from qexp.data.formats.parquet import read_parquet
from qexp.data.formats.request import Request, as_data_error
from qexp.data.skipped import RowErrors
from qexp.errors import DataError, path_hint

TRAIN = "train"
EVALUATION = ("validation", "test")
"""Splits that may be evaluated, the preferred one first."""


class RowFiles:
    """Files with the rows of a user.

    Args:
        path: A file, a folder of ``save_to_disk``, or a folder with a file for each split.

    Raises:
        DataError: There is no such path, or no file of rows in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise DataError(
                f"{path}: no such file or folder; {path_hint(path)}name a file of rows, or a folder of splits"
            )
        self._only = finder.only_rows(path)
        self.evaluation: str | None = None
        """Split that is evaluated; None where one file is divided."""
        if not self._only:
            self.evaluation = self._evaluation_split()

    def table(self) -> pa.Table:
        """Return the rows by which columns are told: those to evaluate, or all of one file."""
        files = self._only or finder.files_of(self.path, str(self.evaluation))
        return pa.concat_tables([_read(file) for file in files], promote_options="permissive")

    def all_splits(self) -> list[tuple[Path, pa.Table]]:
        """Return the first file and the rows of each split."""
        if self._only:
            return [(self._only[0], self.table())]
        splits = [finder.files_of(self.path, each) for each in (TRAIN, str(self.evaluation))]
        return [
            (files[0], pa.concat_tables(map(_read, files), promote_options="permissive")) for files in splits
        ]

    def _evaluation_split(self) -> str:
        if self.path.is_file():
            raise DataError(
                f"{self.path}: {self.path.suffix or 'no ending'} is no format of rows; allowed are "
                f"{', '.join(finder.READERS)}, and folders; rename or convert it"
            )
        found = [split for split in EVALUATION if finder.files_of(self.path, split)]
        if not found or not finder.files_of(self.path, TRAIN):
            lacking = TRAIN if found else " or ".join(EVALUATION)
            raise DataError(
                f"{self.path}: no file of split {lacking}, whose name may be "
                f"{finder.names_of(TRAIN if found else EVALUATION[0])}; the folder holds "
                f"{finder.content_of(self.path)}; add the split, or name one file, which is divided"
            )
        return found[0]


def _read(path: Path) -> pa.Table:
    """Read all columns of a file; words and tags of CoNLL get the names of the hub."""
    reader = finder.reader_of(path)
    assert reader is not None, f"{path} was found by its reader"
    words = {name: name for name in ("tokens", "ner_tags")} if reader is read_conll else {}
    optional: list[str] = []
    if reader is read_parquet:
        with as_data_error(path, "parquet file", "copy or write it again"):
            optional = pq.read_schema(path).names
    request = Request(
        "", "", wanted=words, texts=[*words][:1], optional=optional, faults=RowErrors(strict=False)
    )
    return reader(path, request)
