"""Tables of the splits of a task, before their rows are validated."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import CORPUS, RetrievalTask, Task
from qexp.data.formats.request import TRANSLATION
from qexp.data.sources.splits import Division

QUERIES, QRELS = "queries", "qrels"
"""BEIR's table of queries, and its folder with the judgments of each split."""


@dataclass
class Tables:
    """Tables by split, and what is told of them.

    Attributes:
        tables: Location, as error messages name it, and table, by the split's name in the task.
        statements: Sentences on what was read: files and splits that were made.
        notes: Warnings, such as rows that were skipped.
        division: How the rows of the train split, the only ones there are, become two splits; else None.
    """

    tables: dict[str, tuple[str, pa.Table]] = field(default_factory=dict)
    statements: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    division: Division | None = None


def splits_of(task: Task) -> list[tuple[str, str, str]]:
    """Return, for each split, its name in the task, its data set, and its name in that data set.

    BEIR's documents and queries are tables beside the judgments of each split.
    """
    if isinstance(task, RetrievalTask) and task.layout == "beir":
        judged = [f"{QRELS}/{split}" for split in dict.fromkeys([task.train, *task.evaluation.values()])]
        return [(table, task.name, table) for table in (CORPUS, QUERIES, *judged)]
    splits = dict.fromkeys([task.train, *task.evaluation.values()])
    apart = [(split, *split.rpartition("/")) for split in splits]
    return [(split, name or task.name, own) for split, name, _, own in apart]


def is_optional(split: str, task: Task) -> bool:
    """Return whether a split may be absent: judgments of a retrieval's train split."""
    return isinstance(task, RetrievalTask) and split == f"{QRELS}/{task.train}"


def flat(table: pa.Table) -> pa.Table:
    """Return a table of a column per language where it has one column of {language: text}, as WMT's."""
    if table.column_names != [TRANSLATION]:
        return table
    columns = table.flatten()
    return columns.rename_columns([name.removeprefix(f"{TRANSLATION}.") for name in columns.column_names])
