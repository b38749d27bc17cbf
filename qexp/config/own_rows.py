"""Settings of a task whose rows are one's own: its name, its columns, and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from qexp.config.embedding import BI_ENCODERS

MULTI30K: Mapping[str, Any] = {
    "name": "multi30k_en_de",
    "source": "en",
    "target": "de",
    "evaluation": {"test": "test"},
}
"""What ``task=translation`` is without rows of one's own."""
PAIRS: Mapping[str, Any] = {
    "source": "source",
    "target": "target",
    "evaluation": {"validation": "validation"},
}
"""What ``task=translation`` is with rows of one's own."""
SAMPLES = (*BI_ENCODERS, "multi_label", "reranking", "token_classification")
"""Kinds of task of one's own rows for which there are generated ones, too, under the name of the kind."""
PAIR = ("text", "text_pair")
"""Columns of texts where the task leaves them open."""


def resolve_own_rows(task: dict[str, Any], data: dict[str, Any]) -> None:
    """Fill in what a task leaves open because its rows are those of ``data.path``.

    A null name becomes that of the file, null ``text`` as many columns as ``data`` names, and ``data.text``
    and ``data.label`` become entries of ``data.columns``.

    Raises:
        ValueError: The task has no rows of its own and ``data.path`` is null, or ``data.text`` has another
            number of columns than the task.
    """
    if "name" in task and task["name"] is None:
        _name(task, data)
    if task.get("kind") == "translation":
        _fill(task, PAIRS)
    columns = dict(data["columns"]) if isinstance(data.get("columns"), Mapping) else {}
    texts = data.pop("text", None)
    texts = [texts] if isinstance(texts, str) else texts
    if "text" in task and task["text"] is None:
        count = len(texts) if isinstance(texts, list | tuple) else 1 + (PAIR[1] in columns)
        task["text"] = list(PAIR[:count])
    own_texts, own_label = _columns_of(task)
    if task.get("kind") == "retrieval" and (texts is not None or data.get("label") is not None):
        raise ValueError(
            "data.text and data.label with task=retrieval: its files have the columns of BEIR or of SQuAD; "
            "leave them out, and rename the columns in the files"
        )
    if isinstance(texts, list | tuple):
        if len(texts) != len(own_texts):
            raise ValueError(
                f"data.text={_list(texts)}: task={task.get('name')} reads {len(own_texts)} "
                f"({', '.join(own_texts)}); name a column for each"
            )
        _enter(columns, dict(zip(own_texts, texts, strict=True)), "data.text")
    if task.get("kind") == "multi_label" and isinstance(data.get("label"), list | tuple):
        _one_column_for_each_label(task, data.pop("label"))
    if (label := data.pop("label", None)) is not None:
        if not isinstance(label, str):
            raise ValueError(f"data.label={_list(label)}: task={task.get('name')} reads one column; name it")
        _enter(columns, {own_label: label}, "data.label")
    if columns:
        data["columns"] = columns


def _one_column_for_each_label(task: dict[str, Any], names: Any) -> None:
    """Take the labels of a task from the names of their columns of 0 and 1."""
    if task.get("labels") and list(task["labels"]) != list(names):
        raise ValueError(
            f"data.label={_list(names)} with task.labels={_list(task['labels'])}: the columns are the "
            "labels; leave task.labels out, and rename columns with data.columns"
        )
    task |= {"label": None, "labels": list(names)}


def _name(task: dict[str, Any], data: Mapping[str, Any]) -> None:
    if path := data.get("path"):
        task["name"] = PurePath(str(path)).stem
    elif task.get("kind") == "translation":
        _fill(task, MULTI30K)
    elif data.get("source") == "sample" and task.get("kind") in SAMPLES:
        task["name"] = task["kind"]
    else:
        sample = ", or take generated ones with data=sample" * (task.get("kind") in SAMPLES)
        raise ValueError(
            f"data.path=null with task={task.get('kind')}: the rows of this task are your own; name them "
            f"with data.path=FILE{sample}, or choose a task that has rows, such as task=mrpc"
        )


def _fill(section: dict[str, Any], values: Mapping[str, Any]) -> None:
    section.update(
        {name: value for name, value in values.items() if name in section and section[name] is None}
    )


def _columns_of(task: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the task's columns of texts and of gold values."""
    kind = task.get("kind")
    if kind == "question_answering":
        return ["question", "context"], "answers"
    if kind == "translation":
        return [str(task.get("source", "source"))], str(task.get("target", "target"))
    texts = task.get("text")
    return list(map(str, texts if isinstance(texts, list | tuple) else [])), str(task.get("label") or "label")


def _enter(columns: dict[str, Any], entries: Mapping[str, Any], field: str) -> None:
    for name, column in entries.items():
        if name in columns:
            raise ValueError(
                f"{field} and data.columns.{name}={columns[name]}: both name the column of {name!r}; keep one"
            )
        columns[name] = column


def _list(names: Any) -> str:
    return f"[{','.join(map(str, names))}]"
