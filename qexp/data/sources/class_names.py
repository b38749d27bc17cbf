"""Matching of class names between a task, the schema of its rows, and a fine-tuned head.

Class ids have no meaning of their own: rows and checkpoints that number the same classes differently are
mapped where the names are unambiguous, and rejected otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import Task, TextTask, TokenTask
from qexp.errors import DataError, ModelError

METADATA = b"huggingface"
"""Key of a table's schema under which ``datasets`` keeps its features, with the names of a ClassLabel."""


def plain(name: str) -> str:
    """Normalize a name for comparison: lower case, letters and digits only."""
    return "".join(character for character in str(name).lower() if character.isalnum())


def compared(*lists: Sequence[str]) -> list[list[str]]:
    """Return lists of names in the form in which they are compared.

    That is without case and punctuation, unless this makes two names of a list alike, as it does with ``-1``
    and ``1``, or ``C`` and ``C++``. Names are then compared as they are.
    """
    normalized = [[plain(name) for name in names] for names in lists]
    if all(len(set(names)) == len(names) for names in normalized):
        return normalized
    return [[str(name) for name in names] for names in lists]


def are_placeholders(names: Sequence[str]) -> bool:
    """Return whether the names are ``LABEL_0``, ``LABEL_1``, … or ``0``, ``1``, … in any order."""
    suffixes = {plain(name).removeprefix("label") for name in names}
    return suffixes == {str(index) for index in range(len(names))}


def names_in(table: pa.Table, column: str) -> tuple[str, ...]:
    """Return the class names in a table's own schema, by id; empty if it has none, or placeholders."""
    try:
        features = json.loads((table.schema.metadata or {})[METADATA])["info"]["features"]
        names = tuple(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError):  # no such metadata, or the column is not a ClassLabel
        return ()
    return () if are_placeholders(names) else names


def ids_in_order_of(task: TextTask, table: pa.Table, where: str) -> list[int] | None:
    """Return the task's id for each id of the table; None if they are equal or the table names no classes.

    Raises:
        DataError: The class names of the table differ from those of the task.
    """
    names = names_in(table, task.label)
    if not names:
        return None
    task_names, table_names = compared(task.labels, names)
    if sorted(task_names) != sorted(table_names) or len(set(task_names)) != len(task_names):
        raise DataError(
            f"{where}: column {task.label!r} has the classes {list(names)} by its own schema, but "
            f"task.labels={list(task.labels)}; set task.labels=[{','.join(names)}], the rows' names in their "
            "order, or correct the schema"
        )
    order = [task_names.index(name) for name in table_names]
    return None if order == list(range(len(order))) else order


def notes_on_rows(tables: Mapping[str, tuple[str, pa.Table]], task: Task) -> tuple[str, ...]:
    """Return notes on the tables whose class ids are mapped to the task's order.

    Args:
        tables: Location, as error messages name it, and table by split.
        task: Task of the rows.

    Raises:
        DataError: Some tables are mapped and others do not name their classes, so their order is unknown.
    """
    if not isinstance(task, TextTask) or task.kind != "classification":
        return ()
    moved = [where for where, table in tables.values() if ids_in_order_of(task, table, where) is not None]
    unnamed = [where for where, table in tables.values() if not names_in(table, task.label)]
    if moved and unnamed:
        raise DataError(
            f"{moved[0]}: column {task.label!r} orders its classes otherwise than task.labels="
            f"{list(task.labels)}, and {unnamed[0]} does not name its classes: their order is unknown; write "
            "both with the same schema"
        )
    return tuple(
        f"{where}: ids of column {task.label!r} were put from the order of its schema, "
        f"{', '.join(names_in(table, task.label))}, into that of task.labels, {', '.join(task.labels)}"
        for where, table in tables.values()
        if where in moved
    )


def head_names(id2label: Mapping[Any, str]) -> tuple[str, ...]:
    """Return the names of a head's outputs, in their order; empty if it has none.

    Raises:
        ModelError: The keys are not the numbers of the outputs, counted from 0.
    """
    by_output = {str(key): str(name) for key, name in id2label.items()}
    if set(by_output) != {str(index) for index in range(len(by_output))}:
        raise ModelError(
            f"id2label in the checkpoint's config.json has the keys {', '.join(by_output)}; needed are the "
            f"numbers of its outputs, 0 to {len(by_output) - 1}: correct the file"
        )
    return tuple(by_output[str(index)] for index in range(len(by_output)))


def label_order(id2label: Mapping[Any, str], labels: Sequence[str]) -> list[int]:
    """Return the index of the checkpoint's output for each label of the task.

    Names are compared as in :func:`compared`; ``LABEL_0``, ``LABEL_1``, … stand for the task's order, also if
    they count from 1.

    Raises:
        ModelError: The names differ from those of the task, or the head's outputs are not numbered from 0.
    """
    outputs = head_names(id2label)
    names, wanted = compared(outputs, labels)
    for first in (0, 1):
        numbered = [f"label{index}" for index in range(first, first + len(labels))]
        if sorted(map(plain, outputs)) == sorted(numbered) and sorted(names) != sorted(wanted):
            return [[*map(plain, outputs)].index(name) for name in numbered]
    if sorted(names) != sorted(wanted) or len(set(names)) != len(names):
        raise ModelError(
            f"finetune=none: the checkpoint's labels are {list(outputs)}, the task's are "
            f"{list(labels)}; rename id2label in the checkpoint's config.json to the task's names"
        )
    return [names.index(name) for name in wanted]


def notes_on_head(config: Mapping[str, Any], task: TextTask | TokenTask) -> tuple[str, ...]:
    """Return notes on a fine-tuned head whose outputs are mapped to the task's order, or have no names.

    Args:
        config: Content of the checkpoint's ``config.json``.
        task: Classification of texts or words.

    Raises:
        ModelError: The names differ from those of the task.
    """
    ids: Mapping[Any, str] = config.get("id2label") or {}
    if ids and len(ids) != len(task.labels):
        return ()  # loading the head raises an error that names its width
    names = head_names(ids)
    own, wanted = compared(names, task.labels)
    if not names or (are_placeholders(names) and sorted(own) != sorted(wanted)):
        return (
            "finetune=none: the checkpoint's config.json does not name its classes; they are taken in the "
            f"order of task.labels: {', '.join(task.labels)}",
        )
    if label_order(ids, task.labels) == list(range(len(task.labels))):
        return ()
    return (
        f"finetune=none: outputs of the checkpoint's head were put from its order, "
        f"{', '.join(names)}, into that of task.labels, {', '.join(task.labels)}",
    )
