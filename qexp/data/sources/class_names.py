"""Classes by their names: those of a task, of rows that bring their own, and of a fine-tuned head.

Ids mean nothing by themselves: rows and checkpoints that call the same classes by other numbers are mapped
where the names leave no doubt, and refused otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import Task, TextTask
from qexp.errors import DataError, ModelError

METADATA = b"huggingface"
"""Key of a table's schema under which ``datasets`` keeps its features, with the names of a ClassLabel."""


def plain(name: str) -> str:
    """A name without case and punctuation, as names are compared."""
    return "".join(character for character in str(name).lower() if character.isalnum())


def are_placeholders(names: Sequence[str]) -> bool:
    """Whether they are ``LABEL_0``, ``LABEL_1``, … or ``0``, ``1``, … in any order, which name nothing."""
    found = {plain(name).removeprefix("label") for name in names}
    return found == {str(index) for index in range(len(names))}


def names_in(table: pa.Table, column: str) -> tuple[str, ...]:
    """Names of the classes that a table's own schema gives, by id; empty where it gives none."""
    try:
        features = json.loads((table.schema.metadata or {})[METADATA])["info"]["features"]
        names = tuple(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError):  # no such metadata, or a column that is no ClassLabel
        return ()
    return () if are_placeholders(names) else names


def ids_in_order_of(task: TextTask, table: pa.Table, where: str) -> list[int] | None:
    """The task's id of each id of the table; None where they are the same, or the table names no classes.

    Raises:
        DataError: The table's classes have other names than the task's.
    """
    names = names_in(table, task.label)
    if not names:
        return None
    ours = [plain(label) for label in task.labels]
    theirs = [plain(name) for name in names]
    if sorted(ours) != sorted(theirs) or len(set(ours)) != len(ours):
        raise DataError(
            f"{where}: column {task.label!r} has the classes {list(names)} by its own schema, but "
            f"task.labels={list(task.labels)}; set task.labels=[{','.join(names)}], the rows' names in their "
            "order, or correct the schema"
        )
    order = [ours.index(name) for name in theirs]
    return None if order == list(range(len(order))) else order


def notes_on_rows(tables: Mapping[str, tuple[str, pa.Table]], task: Task) -> tuple[str, ...]:
    """What to say of tables, by split, whose classes are put into the task's order.

    Raises:
        DataError: Some are, and others do not name theirs: nothing tells which order those have.
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


def label_order(id2label: Mapping[Any, str], labels: Sequence[str]) -> list[int]:
    """Output of the checkpoint for each label of the task.

    Names are compared without case and punctuation; ``LABEL_0``, ``LABEL_1``, … mean the task's order.

    Raises:
        ModelError: the names are others than the task's.
    """
    names = {plain(name): int(index) for index, name in id2label.items()}
    if set(names) == {f"label{index}" for index in range(len(labels))}:
        return [names[f"label{index}"] for index in range(len(labels))]
    if set(names) != {plain(label) for label in labels}:
        raise ModelError(
            f"finetune=none: the checkpoint's labels are {list(id2label.values())}, the task's are "
            f"{list(labels)}; rename id2label in the checkpoint's config.json to the task's names"
        )
    return [names[plain(label)] for label in labels]


def notes_on_head(config: Mapping[str, Any], task: TextTask) -> tuple[str, ...]:
    """What to say of a fine-tuned head whose classes are put into the task's order, or have no names.

    Args:
        config: The checkpoint's ``config.json``.
        task: A classification.

    Raises:
        ModelError: the names are others than the task's.
    """
    names: Mapping[Any, str] = config.get("id2label") or {}
    if names and len(names) != len(task.labels):
        return ()  # said where the head is loaded, with the width that it has
    if not names or are_placeholders(list(names.values())):
        return (
            "finetune=none: the checkpoint's config.json does not name its classes; they are taken in the "
            f"order of task.labels: {', '.join(task.labels)}",
        )
    if label_order(names, task.labels) == list(range(len(task.labels))):
        return ()
    return (
        f"finetune=none: outputs of the checkpoint's head were put from its order, "
        f"{', '.join(names.values())}, into that of task.labels, {', '.join(task.labels)}",
    )
