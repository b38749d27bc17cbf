"""Detection of the columns of texts and of the label, by their names and by what is in them.

A name that people give such a column decides first, and then the values. Where both leave several, none is
taken: a wrong column would give scores that look like a bad model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

from qexp.data.arrow import as_strings, is_text
from qexp.data.detection.heads import Head
from qexp.data.sources.class_names import plain
from qexp.data.sources.labels import listed
from qexp.data.sources.validation import as_numbers
from qexp.errors import DataError

LABELS = (
    "label", "labels", "gold_label", "target", "class", "category", "gold", "y", "score", "similarity",
    "relevance", "rating", "stars", "sentiment", "intent", "topic", "ner_tags", "tags", "pos_tags",
    "answers", "answer",
)  # fmt: skip
"""Names of columns of labels, the usual ones first."""
TEXTS = (
    "text", "sentence", "content", "review", "document", "body", "message", "comment", "tweet",
    "subject", "title", "utterance", "query", "question",
)  # fmt: skip
"""Names of a column of texts, the usual ones first."""
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text", "text_pair"),
    ("text1", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b"), ("query", "document"),
    ("query", "passage"), ("query", "text"), ("question", "context"), ("question", "passage"),
    ("question", "sentence"), ("question", "answer"),
)  # fmt: skip
"""Names of two columns of texts."""
WORDS = ("tokens", "words")
_IDS = ("id", "idx", "index", "guid", "uid", "unnamed: 0", "", "__index_level_0__", "query_id")
FEW_ROWS = 5
"""Rows for each distinct value from which a column of texts is one of categories."""


def label_column(table: pa.Table, kind: str | None, head: Head, where: str) -> str:
    """Return the column of labels.

    Args:
        table: Rows.
        kind: Kind of task; None is one of a head for sequences.
        head: Head of the checkpoint, whose names the labels may have.
        where: Name of the table in messages.

    Raises:
        DataError: None is one, or several may be.
    """
    names = [name for name in table.column_names if name.lower() not in _IDS]
    if kind == "token_classification":
        fitting = [name for name in names if is_list(table, name) and name.lower() not in WORDS]
    elif kind in ("regression", "reranking", "embedding"):
        fitting = [name for name in names if is_number(table, name)]
    else:
        fitting = [name for name in names if _may_be_classes(table, name, kind)]
    if head.names and (known := [name for name in fitting if _is_known(table, name, head.names)]):
        fitting = known
    return _only(fitting, LABELS, names=names, what=f"{where}: labels", action="data.label=NAME")


def text_columns(table: pa.Table, label: str | None, *, pair: bool, where: str) -> tuple[str, ...]:
    """Return the one or two columns of texts.

    Args:
        table: Rows.
        label: Column of labels, which holds no texts to classify.
        pair: Whether there must be two.
        where: Name of the table in messages.

    Raises:
        DataError: None is one, or it cannot be told which.
    """
    names = [name for name in table.column_names if name != label and name.lower() not in _IDS]
    texts = [name for name in names if is_text(_kind(table, name)) and not is_number(table, name)]
    by_name = {name.lower(): name for name in texts}
    for first, second in PAIRS:
        if {first, second} <= {*by_name}:
            return by_name[first], by_name[second]
    free = [name for name in texts if not _is_category(table, name)] or texts
    action = "data.text=NAME, or 'data.text=[NAME,NAME]' of a pair"
    if not pair:
        return (_only(free, TEXTS, names=names, what=f"{where}: texts", action=action),)
    if len(free) != 2:
        raise DataError(
            f"{where}: two columns of texts are needed, and {listed(free) or 'none'} may be some; name them "
            "with 'data.text=[NAME,NAME]'"
        )
    return free[0], free[1]


def word_column(table: pa.Table, label: str, where: str) -> str:
    """Return the column of lists of words.

    Raises:
        DataError: None is one, or several may be.
    """
    names = [name for name in table.column_names if name != label]
    fitting = [name for name in names if is_list(table, name) and is_text(_kind(table, name).value_type)]
    return _only(fitting, WORDS, names=names, what=f"{where}: words", action="data.text=NAME")


def is_list(table: pa.Table, name: str) -> bool:
    """Return whether a column holds lists."""
    kind = _kind(table, name)
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def is_number(table: pa.Table, name: str) -> bool:
    """Return whether a column holds numbers, also written as texts."""
    kind = as_numbers(table.column(name)).type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def classes_in(table: pa.Table, name: str) -> list[Any]:
    """Return the distinct values of a column of labels, those of lists too."""
    values = table.column(name)
    if is_list(table, name):
        values = pc.list_flatten(values)
    return [value for value in values.unique().to_pylist() if value is not None]


def _may_be_classes(table: pa.Table, name: str, kind: str | None) -> bool:
    if is_list(table, name):
        return kind in (None, "multi_label")
    if kind == "multi_label":
        return False
    numbers = as_numbers(table.column(name)).type
    if pa.types.is_floating(numbers):
        return False
    return pa.types.is_boolean(numbers) or _is_category(table, name) or name.lower() in LABELS


def _is_known(table: pa.Table, name: str, labels: Iterable[str]) -> bool:
    """Return whether most distinct values of a column are labels of the checkpoint."""
    found, known = {plain(str(value)) for value in classes_in(table, name)}, {*map(plain, labels)}
    return bool(found) and 2 * len(found & known) > len(found)


def _is_category(table: pa.Table, name: str) -> bool:
    """Return whether values of a column recur, as names of classes do and texts do not."""
    column = table.column(name)
    if not (is_text(column.type) or pa.types.is_integer(column.type) or pa.types.is_dictionary(column.type)):
        return False
    values = column if pa.types.is_integer(column.type) else as_strings(column)
    distinct = pc.count_distinct(values).as_py()
    return bool(distinct > 1 and distinct * FEW_ROWS <= len(values))


def _only(
    fitting: Sequence[str], usual: Sequence[str], *, names: Sequence[str], what: str, action: str
) -> str:
    """Return the only fitting column, or the only one with a usual name.

    Raises:
        DataError: There is none, or several are left.
    """
    if len(fitting) == 1:
        return fitting[0]
    named = [name for name in fitting if name.lower() in usual]
    if len(named) == 1:
        return named[0]
    found = (
        f"the columns {listed(fitting)} may hold them" if fitting else f"no column of {listed(names)} does"
    )
    raise DataError(f"{what}: {found}; name it with {action}")


def _kind(table: pa.Table, name: str) -> pa.DataType:
    kind = table.schema.field(name).type
    return kind.value_type if pa.types.is_dictionary(kind) else kind
