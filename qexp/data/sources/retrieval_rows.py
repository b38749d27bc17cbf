"""Rows of a retrieval: documents, queries and relevance judgments (qrels), joined to the tables of splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import CORPUS, RetrievalTask
from qexp.data.sources import beir, squad_retrieval
from qexp.data.sources.tables import QRELS, QUERIES, Tables
from qexp.data.sources.validation import check_columns, check_rows

LAYOUTS = {"beir": beir.joined, "squad": squad_retrieval.joined}
"""By ``task.layout``, what joins the tables of files to those of splits."""
TABLES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    CORPUS: (("_id", "text"), ("title",)),
    QUERIES: (("_id", "text"), ()),
    QRELS: (("query-id", "corpus-id", "score"), ()),
}
"""By kind of BEIR's tables, their columns and those that they may have."""


@dataclass(frozen=True)
class FileForm:
    """Columns of one of the tables that are read; the members are those of the modules in ``FORMS``."""

    names: tuple[str, ...]
    OPTIONAL: tuple[str, ...]
    """Columns that are read where there are any."""

    def columns(self, task: RetrievalTask) -> tuple[str, ...]:
        """Return the columns that are read."""
        return self.names

    def texts_in(self, task: RetrievalTask) -> tuple[str, ...]:
        """Return the columns that hold texts, whatever their values look like."""
        return self.names


def form_of_split(task: RetrievalTask, split: str) -> FileForm:
    """Return the columns of a table: ``corpus``, ``queries``, ``qrels/<split>``, or a split of SQuAD."""
    if task.layout == "squad":
        return FileForm(("question", "context"), ("id",))
    return FileForm(*TABLES[split.partition("/")[0]])


def columns(task: RetrievalTask) -> tuple[str, ...]:
    """Return the columns that ``data.columns`` may rename."""
    return ("question", "context") if task.layout == "squad" else ()


def check(table: pa.Table, task: RetrievalTask, where: str) -> None:
    """Check that a table of a file has rows, and each column that is read once.

    Raises:
        DataError: It has not.
    """
    names = next(
        (names for names, _ in TABLES.values() if set(names) <= {*table.column_names}), columns(task)
    )
    check_columns(table.column_names, names, where, fields="")
    check_rows(table, where)


def joined(found: Tables, task: RetrievalTask, max_skipped: float) -> Tables:
    """Return the tables of the splits and of the corpus, in canonical form, from those of the files.

    All have ``id`` (int64, numbers of rows) and ``text`` (string), and all but the split to train on have
    ``_id`` (string). That one has ``is_query`` (int64, 0 or 1), and those to evaluate have ``label``: lists
    of the judged documents, of ``document`` (string, an id of the corpus) and ``relevance`` (int64).

    Args:
        found: Tables by the names of :func:`qexp.data.sources.tables.splits_of`.
        task: Task with its layout and splits.
        max_skipped: Largest share of judgments that may be skipped.

    Raises:
        DataError: An id, a text or a judgment is missing or invalid.
    """
    return LAYOUTS[task.layout](found, task, max_skipped)


def checked(table: pa.Table, task: RetrievalTask, where: str) -> pa.Table:
    """Return a table of :func:`joined`, which is validated already."""
    return table
