"""What is asked of a reader of files, and errors of files that cannot be read."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.skipped import RowErrors
from qexp.data.sources.validation import check_column
from qexp.errors import DataError

IDS = "id"
"""Column of ids in ``data.columns``; null there numbers the rows."""
TRANSLATION = "translation"
"""Column that the hub's sets of translations have alone: a struct of texts by language."""


@dataclass(frozen=True)
class Request:
    """Columns to read.

    Attributes:
        data_set: Name of the data set, by which GLUE's own files are known.
        split: Name of the split in it.
        wanted: Name in the file of each column that the task needs.
        texts: Those columns of the task that hold texts, whatever their values look like.
        optional: Columns that are read where the file has them.
        faults: Counter of lines that cannot be read.
        other: Columns of another layout, likewise, which a file may have in place of ``wanted``.
    """

    data_set: str
    split: str
    wanted: Mapping[str, str]
    texts: Sequence[str]
    optional: Sequence[str]
    faults: RowErrors
    other: Mapping[str, str] = field(default_factory=dict)

    def columns(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return the columns of the layout that a file with these names of columns has."""
        own = {*self.other.values()} - {*self.wanted.values()}
        in_other = own & {*names} and not {*self.wanted.values()} <= {*names}
        return self.other if in_other else self.wanted

    @property
    def text_names(self) -> list[str]:
        """Names of the columns of texts in the file."""
        return [self.wanted[name] for name in self.texts]

    def check(self, names: Sequence[str], path: Path) -> None:
        """Check that a file has each wanted column once.

        Raises:
            DataError: It has not.
        """
        hidden = "; labels of GLUE's test files are hidden" if self.split.startswith("test") else ""
        for column, name in self.columns(names).items():
            setting = self._setting(column)
            chosen = "" if column == name else f"{setting}={name}: "
            instead = f"data.columns={{{column}: NAME}}" if not chosen else f"{setting}=NAME"
            action = f"rename the column, or set {instead}{hidden}"
            check_column(names, name, f"{chosen}{path}", action)

    def _setting(self, column: str) -> str:
        """Return the field that most people choose a column with, ``data.text`` or ``data.label``."""
        others = [each for each in self.wanted if each not in self.texts and each != IDS]
        if [column] == others:
            return "data.label"
        return "data.text" if [column] == [*self.texts] else f"data.columns.{column}"


Reader = Callable[[Path, Request], pa.Table]
"""Function that returns the rows of a file, with the wanted columns that it has, and possibly others."""


@contextmanager
def as_data_error(path: Path, kind: str, action: str) -> Iterator[None]:
    """Reword errors of Arrow and of the file system, with what to do about them."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(_not_utf8(path, error.reason)) from error
    except (pa.ArrowException, csv.Error, OSError) as error:
        if "UTF8" in str(error):
            raise DataError(_not_utf8(path, str(error))) from error
        size = f" ({path.stat().st_size} bytes)" if path.is_file() else ""
        raise DataError(f"{path}{size}: not a readable {kind}: {_first_line(error)}; {action}") from error


def _not_utf8(path: Path, reason: str) -> str:
    return (
        f"{path}: not UTF-8 ({reason}); write the text as UTF-8, such as with iconv -f latin1 -t utf8 "
        f"{path.name}"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
