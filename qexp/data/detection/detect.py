"""Settings of an experiment that check a fine-tuned checkpoint on rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

from qexp.data.arrow import is_text
from qexp.data.detection import columns
from qexp.data.detection.heads import KINDS, Head
from qexp.data.detection.tables import RowFiles
from qexp.data.sources.class_names import names_in, plain
from qexp.data.sources.labels import are_numerals, listed
from qexp.data.sources.validation import check_column
from qexp.errors import ConfigError, DataError

NEEDS_PAIR = ("reranking", "embedding")
LONGEST = {"question_answering": 384}
"""Longest sequence by kind of task, if the model takes so much; else :data:`USUAL`."""
USUAL = 128
UNTIMED = ("none", "onnx")
"""Options of ``deploy`` without a latency, and so without a length of its batches."""
SHORT = 256
"""Longest sequence of a question and its context below which the usual stride would leave no room."""
HELD_OUT = 0.5
"""Share of one file that is evaluated: nothing is trained, so the other half only calibrates."""


@dataclass
class Detected:
    """Settings that were found.

    Attributes:
        kind: Kind of task.
        settings: Value of each field of the experiment, by its path.
        statements: Sentences on what was found.
    """

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)


def detect(head: Head, rows: Path, stated: Mapping[str, Any]) -> Detected:
    """Return the settings for a checkpoint and rows.

    Args:
        head: Head of the checkpoint.
        rows: File or folder.
        stated: Fields that the user sets, by path; ``task`` is the kind. They are not looked for.

    Raises:
        ConfigError: The kind that the user states is none that is checked.
        DataError: Rows cannot be read, columns cannot be told, or labels are unknown to the checkpoint.
    """
    files = RowFiles(rows)
    table = files.table()
    if table.num_rows == 0:
        raise DataError(f"{rows}: zero rows; write the file again, or name another")
    _refuse_missing(stated, table, rows)
    kind = stated.get("task") or _kind_of(head, table)
    if kind not in KINDS:
        raise ConfigError(f"task={kind}: qexp check knows {', '.join(KINDS)}; choose one of them")
    found = Detected(kind)
    if files.evaluation is None:
        found.settings["data.validation_share"] = HELD_OUT
    elif files.evaluation != "validation":
        found.settings["task.evaluation.validation"] = files.evaluation
    longest = found.settings["task.max_length"] = min(LONGEST.get(kind, USUAL), head.positions or USUAL)
    if kind == "question_answering" and longest < SHORT:
        found.settings |= {"task.max_question": longest // 4, "task.doc_stride": longest // 4}
    if head.positions and head.positions < USUAL and stated.get("deploy") not in UNTIMED:
        found.settings["deploy.lengths"] = [head.positions]
    if kind == "embedding" and head.pooling:
        found.settings["task.pooling"] = head.pooling
    _find_columns(found, table, head, stated=stated, where=str(rows))
    if kind in ("classification", "multi_label", "token_classification") and "task.labels" not in stated:
        label = stated.get("data.label", found.settings.get("data.label"))
        if isinstance(label, str):
            _find_labels(found, files, head, label)
    found.settings = {path: value for path, value in found.settings.items() if path not in stated}
    return found


def _kind_of(head: Head, table: pa.Table) -> str:
    """Return the kind of task, by the rows where the head leaves it open."""
    if head.kind:
        return head.kind
    names = {name.lower() for name in table.column_names}
    if head.outputs == 1:
        ranked = {"positive", "negative"} <= names or ("query" in names and "relevance" in names)
        return "reranking" if ranked else "regression"
    lists = [name for name in columns.LABELS if name in names and _is_list(table, name)]
    return "multi_label" if lists else "classification"


def _is_list(table: pa.Table, lower: str) -> bool:
    return any(columns.is_list(table, name) for name in table.column_names if name.lower() == lower)


def _refuse_missing(stated: Mapping[str, Any], table: pa.Table, rows: Path) -> None:
    """Refuse a column that the user names and the rows do not have, in the words that were typed.

    Raises:
        DataError: There is no such column.
    """
    unnamed = {*table.column_names} == {"tokens", "ner_tags"}  # CoNLL's take the names that are wanted
    for setting, value in stated.items():
        named = setting in ("data.text", "data.label") or setting.startswith("data.columns.")
        if not named or value == "null" or unnamed:
            continue
        whole = isinstance(value, list) or value in table.column_names
        for name in value if isinstance(value, list) else [value] if whole else value.split(","):
            action = f"name one of them with {setting}=NAME"
            check_column(table.column_names, name.strip("'\""), f"{setting}={_typed(value)}: {rows}", action)


def _typed(value: Any) -> str:
    return f"[{','.join(value)}]" if isinstance(value, list) else str(value)


def _find_columns(
    found: Detected, table: pa.Table, head: Head, *, stated: Mapping[str, Any], where: str
) -> None:
    settings, kind = found.settings, found.kind
    if kind == "question_answering":
        return _find_questions(found, table, stated)
    if kind == "reranking" and {"positive", "negative"} <= {*table.column_names}:
        return None  # a row for each query, whose columns have names of their own
    label = stated.get("data.label")
    if label is None:
        label = settings["data.label"] = columns.label_column(table, kind, head, where)
    if "data.text" in stated:
        return None
    one = label if isinstance(label, str) else None
    if kind == "token_classification":
        settings["data.text"] = columns.word_column(table, str(label), where)
        return None
    texts = columns.text_columns(table, one, pair=kind in NEEDS_PAIR, where=where)
    settings["data.text"] = texts[0] if len(texts) == 1 else list(texts)
    return None


def _find_questions(found: Detected, table: pa.Table, stated: Mapping[str, Any]) -> None:
    names = {name.lower(): name for name in table.column_names}
    contexts = [names[each] for each in ("context", "passage", "paragraph") if each in names]
    if "data.text" not in stated and contexts and contexts[0] != "context" and "question" in names:
        found.settings["data.text"] = [names["question"], contexts[0]]
    answers = str(stated.get("data.label") or names.get("answers") or names.get("answer") or "")
    if answers and answers != "answers" and "data.label" not in stated:
        found.settings["data.label"] = answers
    if answers in table.column_names and _has_empty_answers(table.column(answers)):
        found.settings["task.unanswerable"] = True


def _has_empty_answers(column: pa.ChunkedArray) -> bool:
    if is_text(column.type):
        return bool(pc.any(pc.equal(column, "")).as_py())
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "text")
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        return False
    return bool(pc.min(pc.list_value_length(column)).as_py() == 0)


def _find_labels(found: Detected, files: RowFiles, head: Head, label: str) -> None:
    """Take the labels of the checkpoint in its order, and compare the rows' with them.

    Raises:
        DataError: Rows have labels that the checkpoint does not know, or more than it has outputs.
    """
    labels = head.names
    for path, table in files.all_splits():
        if label not in table.column_names:
            continue  # refused with all other columns when the rows are read
        here = f"{path}: column {label!r}"
        named = names_in(table, label)
        classes = [str(each) for each in columns.classes_in(table, label)]
        if named and labels and {*map(plain, named)} != {*map(plain, labels)}:
            raise DataError(
                f"{here}: the rows' schema names {listed(named)}, and the checkpoint {listed(labels)}; "
                "rename the classes of the rows, or id2label in the checkpoint's config.json"
            )
        if named or not classes:
            continue
        if labels:
            _refuse_unknown(table.column(label), classes, labels, here)
        elif len(classes) > head.outputs:
            raise DataError(
                f"{here}: {len(classes)} labels ({listed(sorted(classes))}), and the checkpoint has "
                f"{head.outputs} outputs; drop the rows of others, or name another checkpoint"
            )
        elif are_numerals(classes) and {*map(int, classes)} <= {*range(head.outputs)}:
            found.settings["task.labels"] = [f"LABEL_{number}" for number in range(head.outputs)]
    if labels:
        found.settings["task.labels"] = list(labels)
        found.statements.append(f"labels: {listed(labels)}, as the checkpoint orders them")
    elif found.kind != "multi_label":
        found.statements.append(
            f"labels: the checkpoint does not name its {head.outputs} outputs; the order is taken from the "
            "rows (task.labels=[…] sets it)"
        )


def _refuse_unknown(
    values: pa.ChunkedArray, classes: Sequence[str], labels: Sequence[str], here: str
) -> None:
    if are_numerals(classes) and {*map(int, classes)} <= {*range(len(labels))}:
        return  # ids
    known = {*map(plain, labels)}
    unknown = sorted(name for name in classes if plain(name) not in known)
    if unknown:
        raise DataError(
            f"{here}: the checkpoint does not know {_named(unknown, values)}; its labels are "
            f"{listed(labels)}; rename or drop these rows, or rename id2label in the checkpoint's config.json"
        )


def _named(unknown: Sequence[str], values: pa.ChunkedArray) -> str:
    """Return unknown labels for a message; an empty one, which nobody sees, with the first row of it."""
    if unknown[0].strip():  # sorted, so that blank ones come first
        return listed(unknown)
    first = unknown[0]
    row = next(row for row, each in enumerate(values.to_pylist()) if first in (each, *_entries(each)))
    blank = "an empty label" if not first else f"the label {first!r}"
    return listed([f"{blank} (row {row}, counted from 0)", *unknown[1:]])


def _entries(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
