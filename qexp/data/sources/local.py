"""Rows of local files: found by the names of splits, read by format, with the task's names of columns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import Data, Task
from qexp.data.formats import finder
from qexp.data.formats.request import IDS, Request
from qexp.data.skipped import RowErrors, notes_on_skipped
from qexp.data.sources.class_names import METADATA
from qexp.data.sources.forms import JOINED, form_of, optional_columns, other_columns
from qexp.data.sources.splits import Division
from qexp.data.sources.tables import Tables, flat, is_optional, splits_of
from qexp.data.sources.validation import ID_COLUMNS
from qexp.environment import ROOT_VARIABLE
from qexp.errors import DataError, path_hint

WAYS = {
    "local": "data=local data.root=DIR (DIR/<task>/<split>.parquet, .csv, …) or data.path=FILE",
    "hub": "data=hub",
    "sample": "data=sample (generated rows: shows that a run works, its scores mean nothing)",
}
"""Overrides that select each source, for error messages."""


@dataclass(frozen=True)
class Local:
    """Folder or file with the rows of a task.

    Attributes:
        data: Where it is, and which columns are meant.
        task: Task of the rows.
    """

    data: Data
    task: Task

    def tables(self) -> Tables:
        """Read the splits that the task uses.

        Raises:
            DataError: A file or column is missing or cannot be read.
        """
        self._check_columns()
        if self.data.separator is not None and not hasattr(form_of(self.task), "separated"):
            raise DataError(
                f"data.separator={self.data.separator!r} with task={self.task.name}: a row has one label; "
                "leave it out, or choose task=multi_label"
            )
        if self.data.path is None:
            return self._of_folders(root_of(self.data))
        path, several = Path(self.data.path).expanduser().absolute(), type(self.task) in JOINED
        if not path.exists():
            hint = path_hint(self.data.path)
            raise DataError(f"data.path={path}: no such file or folder; {hint}correct it")
        if not several and len(files := finder.only_rows(path)) > 0:
            return self._of_one_table(files)
        if path.is_file() and several:
            raise DataError(
                f"data.path={path}: a file, but task={self.task.name} reads several tables; name the folder "
                "with corpus, queries and qrels, or with a file for each split"
            )
        if path.is_file():
            raise DataError(
                f"data.path={path}: {path.suffix or 'no ending'} is no format of rows; allowed are "
                f"{', '.join(finder.READERS)}, and folders; rename or convert it"
            )
        return self._of_folders(path.parent, own_folder=path)

    def _of_folders(self, root: Path | None, own_folder: Path | None = None) -> Tables:
        """Read each split from the folder of its data set in the root; ``own_folder`` is the task's."""
        if root is None:
            raise DataError(
                f"data.source=local: data.root is null and {ROOT_VARIABLE} is not set; "
                f"{ways('local', 'hub', 'sample')}"
            )
        found = Tables()
        for split, name, own in splits_of(self.task):
            own_rows = own_folder if name == self.task.name else None
            folder = own_rows or (finder.folder_of(root, name) if root.is_dir() else None)
            if folder is None:
                missing = root / name if root.is_dir() else self.data.root or root
                hint = path_hint(missing, folder=True)
                raise DataError(
                    f"data.source=local: {root} has no folder {name!r}; "
                    f"{hint}{ways('local', 'hub', 'sample')}"
                )
            files = finder.files_of(folder, own)
            if not files and is_optional(split, self.task):
                continue
            if not files:
                action = "add it" if type(self.task) in JOINED else "add the split"
                raise DataError(
                    f"{folder}: no file of split {own!r}, whose name may be {finder.names_of(own)}; the "
                    f"folder holds {finder.content_of(folder)}; {action}, or choose another with "
                    f"task.train or task.evaluation.{own.rpartition('/')[2]}"
                )
            self._add(found, split, files, own)
        return found

    def _of_one_table(self, files: Sequence[Path]) -> Tables:
        """Read the only rows that there are, which are divided when they are validated."""
        splits = [split for split, _, _ in splits_of(self.task)]
        if len(splits) != 2:
            raise DataError(
                f"data.path={self.data.path}: one file for the splits {', '.join(splits)}; name a folder "
                "with a file for each"
            )
        found = Tables(division=Division(splits, self.data.validation_share, self.data.split_seed))
        self._add(found, self.task.train, files, self.task.train)
        return Tables(found.tables, notes=found.notes, division=found.division)

    def _add(self, found: Tables, split: str, files: Sequence[Path], own: str) -> None:
        where = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
        if renamed := [f"{column} as {name}" for name, column in self.data.columns.items() if column]:
            where += f" ({', '.join(renamed)})"
        faults = RowErrors(strict=False)
        parts = [self._read(path, split, own=own, faults=faults) for path in files]
        try:
            table = pa.concat_tables(parts, promote_options="permissive")
        except pa.ArrowException as error:
            raise DataError(
                f"{where}: the parts have other types of columns: {error}; write them again"
            ) from error
        lost = sum(each.rows for each in faults.skipped)
        found.notes += notes_on_skipped(faults.skipped, table.num_rows + lost, where, self.data.max_skipped)
        found.tables[split] = (where, table)
        found.statements += (f"{split}: {table.num_rows} rows of {where}",)

    def _read(self, path: Path, split: str, *, own: str, faults: RowErrors) -> pa.Table:
        reader = finder.reader_of(path)
        assert reader is not None, f"{path} was found by its reader"
        form = form_of(self.task, split)
        wanted, other = (
            {name: self.data.columns.get(name) or name for name in columns}
            for columns in (form.columns(self.task), other_columns(self.task))
        )
        chosen = self.data.columns.get(IDS, "")
        ids = {IDS: chosen} if chosen else {}
        numbered = IDS in self.data.columns
        may_have = optional_columns(self.task, split)
        optional = [name for name in may_have if not (numbered and name in ID_COLUMNS)]
        request = Request(
            self.task.name,
            own,
            wanted={**wanted, **ids},
            texts=form.texts_in(self.task),
            optional=optional,
            faults=faults,
            other={**other, **ids} if other else {},
        )
        table = flat(reader(path, request))
        request.check(table.column_names, path)
        selected = _selected(table, request.columns(table.column_names), optional)
        if self.data.separator is not None:
            selected = form.separated(selected, self.task, self.data.separator, str(path))
        return selected

    def _check_columns(self) -> None:
        if self.data.columns and not form_of(self.task).columns(self.task):
            raise DataError(
                f"data.columns={dict(self.data.columns)} with task={self.task.name}: its tables have the "
                "columns of BEIR; leave it out, and rename columns in the files"
            )
        columns = (*form_of(self.task).columns(self.task), *other_columns(self.task))
        allowed = (*dict.fromkeys(columns), IDS)
        for name in self.data.columns:
            if name not in allowed:
                raise DataError(
                    f"data.columns.{name}={self.data.columns[name]}: task={self.task.name} has no such "
                    f"column; allowed are {', '.join(allowed)}, each with its name in the file"
                )


def ways(*sources: str) -> str:
    """Return how to choose one of some sources, for error messages."""
    return "choose one of: " + "; ".join(WAYS[source] for source in sources)


def root_of(data: Data) -> Path | None:
    """Return the folder with a folder for each data set; None if none is set."""
    folder = data.root or os.environ.get(ROOT_VARIABLE)
    return Path(folder).expanduser().absolute() if folder else None


def _selected(table: pa.Table, wanted: Mapping[str, str], optional: Sequence[str]) -> pa.Table:
    """Return the wanted columns by the task's names, also in the features of ``datasets``."""
    more = [name for name in optional if name in table.column_names and name not in wanted]
    names = {**wanted, **{name: name for name in more}}
    selected = table.select(list(names.values())).rename_columns(list(names))
    try:
        features = json.loads((table.schema.metadata or {})[METADATA])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return selected.replace_schema_metadata(None)
    renamed: dict[str, Any] = {new: features.get(old) for new, old in names.items()}
    return selected.replace_schema_metadata({METADATA: json.dumps({"info": {"features": renamed}})})
