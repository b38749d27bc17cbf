"""Rows of a reranking: queries, each with documents and their relevance.

Files have them in three layouts: a row for each query with lists of relevant and other documents (as the
reranking sets of MTEB), a row for each query with one document of both (triplets), and a row for each pair of
a query and a document with its relevance. All become one row for each query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import RerankingTask
from qexp.data.arrow import from_numpy, from_texts, is_text, nulls
from qexp.data.skipped import RowErrors, notes_on_skipped
from qexp.data.sources import labels
from qexp.data.sources.validation import ID_COLUMNS, check_columns, check_rows, refuse, row_ids, texts
from qexp.errors import DataError

FIELDS = "data.text and data.label"
"""Fields of the experiment that select the columns, as error messages name them."""

OPTIONAL = ID_COLUMNS
"""Columns that are read where there are any, besides those of :func:`optional`."""
LISTS = pa.list_(pa.string())
_DOCUMENTS = "a query has a list of documents here, or one document; write such lists (JSON lines, parquet)"


def columns(task: RerankingTask) -> tuple[str, ...]:
    """Return the columns that are read of rows with one pair each, the relevance last."""
    return (*task.text, task.label)


def other_columns(task: RerankingTask) -> tuple[str, ...]:
    """Return the columns that are read where a row has relevant and other documents."""
    return (task.text[0], task.positive, task.negative)


def optional(task: RerankingTask) -> tuple[str, ...]:
    """Return the columns of this task that are read where there are any."""
    return (task.query_id,)


def texts_in(task: RerankingTask) -> tuple[str, ...]:
    """Return the columns that hold texts, whatever their values look like."""
    return task.text


def split_by(task: RerankingTask) -> tuple[str, ...]:
    """Return the column by which the rows of one file are divided: a query is in one split."""
    return task.text[:1]


def _in_pairs(table: pa.Table, task: RerankingTask) -> bool:
    """Return whether a row is a pair, not a query with documents of both kinds."""
    return not {task.positive, task.negative} & {*table.column_names} or {*columns(task)} <= {
        *table.column_names
    }


def check(table: pa.Table, task: RerankingTask, where: str) -> None:
    """Check that the table has rows, and each column of its layout once.

    Raises:
        DataError: It has not.
    """
    wanted = columns(task) if _in_pairs(table, task) else other_columns(task)
    check_columns(table.column_names, wanted, where, fields=FIELDS)
    check_rows(table, where)


def completed(
    task: RerankingTask, tables: Mapping[str, tuple[str, pa.Table]]
) -> tuple[RerankingTask, tuple[str, ...]]:
    """Return the task with the largest relevance of the train split, and a sentence on it.

    Raises:
        DataError: No document of the train split is relevant, or a relevance cannot be read.
    """
    if task.max_relevance is not None:
        return task, ()
    where, table = tables[task.train]
    largest = float(_relevance(table, task, where).max()) if _in_pairs(table, task) else 1.0
    if largest <= 0:
        raise DataError(
            f"{where}: column {task.label!r}: no document is relevant, so there is nothing to learn; name "
            "the column of the relevance with data.label=NAME, or set task.max_relevance"
        )
    statements = (f"relevance: 0 to {largest:g}; the target in training is relevance / {largest:g}",)
    return task.model_copy(update={"max_relevance": largest}), statements if largest != 1 else ()


def checked(table: pa.Table, task: RerankingTask, where: str) -> pa.Table:
    """Return the table in canonical form, a row for each query.

    ``id`` is int64, ``task.text[0]`` a string, ``task.text[1]`` the list of its documents, and ``label`` the
    list of their relevance, float64.

    Raises:
        DataError: A column, text, list or relevance is missing or invalid.
    """
    check(table, task, where)
    name, document = task.text
    queries = texts(table.column(name), f"{where}: column {name!r}", fields="task.text").to_pylist()
    if _in_pairs(table, task):
        here = f"{where}: column {document!r}"
        given = texts(table.column(document), here, fields="task.text").to_pylist()
        found = [[each] for each in given]
        relevance = [[each] for each in _relevance(table, task, where).tolist()]
        groups, ids = _groups(table, task, queries, where), None
    else:
        sides = [_documents(table, column, where) for column in (task.positive, task.negative)]
        found = [[*positive, *negative] for positive, negative in zip(*sides, strict=True)]
        relevance = [[1.0] * len(one) + [0.0] * len(other) for one, other in zip(*sides, strict=True)]
        lists = not is_text(table.schema.field(task.positive).type)
        groups = list(range(len(queries))) if lists else _groups(table, task, queries, where)
        ids = row_ids(table, where) if lists else None
    return _of_queries(_Candidates(groups, queries, found, relevance), task, ids)


@dataclass(frozen=True)
class _Candidates:
    """Documents of each row, the number of the query that it belongs to, and its text."""

    groups: list[int]
    queries: list[str]
    documents: list[list[str]]
    relevance: list[list[float]]


def _of_queries(rows: _Candidates, task: RerankingTask, ids: pa.ChunkedArray | None) -> pa.Table:
    """Return the canonical table, queries in the order of their first row."""
    count = max(rows.groups) + 1
    firsts = [""] * count
    documents: list[list[str]] = [[] for _ in range(count)]
    relevance: list[list[float]] = [[] for _ in range(count)]
    for place, group in enumerate(rows.groups):
        firsts[group] = rows.queries[place]
        documents[group] += rows.documents[place]
        relevance[group] += rows.relevance[place]
    name, document = task.text
    form = {
        "id": from_numpy(np.arange(count, dtype=np.int64)) if ids is None else ids,
        name: from_texts(firsts),
        document: pa.chunked_array([pa.array(documents, LISTS)]),
        "label": pa.chunked_array([pa.array(relevance, pa.list_(pa.float64()))]),
    }
    return pa.table(form)


def _groups(table: pa.Table, task: RerankingTask, queries: list[str], where: str) -> list[int]:
    """Return the number of the query of each row: by ``task.query_id`` where there is one, else by text.

    Raises:
        DataError: An id is missing, or has two texts.
    """
    if task.query_id not in table.column_names:
        places: dict[Any, int] = {}
        return [places.setdefault(query, len(places)) for query in queries]
    values, here = table.column(task.query_id), f"{where}: column {task.query_id!r}"
    refuse(nulls(values), values, here, "every row needs the id of its query; fill it in or drop the column")
    names, places = values.to_pylist(), {}
    groups = [places.setdefault(name, len(places)) for name in names]
    first: dict[int, str] = {}
    other = np.array(
        [first.setdefault(group, query) != query for group, query in zip(groups, queries, strict=True)]
    )
    rule = "it is the id of an earlier row with another query; give each query an id of its own"
    refuse(other, values, here, rule)
    return groups


def _relevance(table: pa.Table, task: RerankingTask, where: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the relevance of each pair, float64 [rows].

    Raises:
        DataError: One is missing, negative or no number.
    """
    values, here = table.column(task.label), f"{where}: column {task.label!r}"
    refuse(nulls(values), values, here, "every pair needs a relevance; fill it in or drop the row")
    numbers = labels.numbers(values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values, here)
    rule = "a relevance is a number from 0 (not relevant) on; correct or drop the row"
    with np.errstate(invalid="ignore"):
        refuse(~(np.isfinite(numbers) & (numbers >= 0)), values, here, rule)
    return numbers + 0.0  # + 0.0 turns -0.0 into 0.0


def _documents(table: pa.Table, name: str, where: str) -> list[list[str]]:
    """Return the documents of each row.

    Raises:
        DataError: The column has no texts or lists of texts, or one of them is null.
    """
    values, here = table.column(name), f"{where}: column {name!r}"
    if is_text(values.type):
        return [[each] for each in texts(values, here, fields="task.positive, task.negative").to_pylist()]
    lists = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
    inner = values.type.value_type if lists else None
    if inner is None or not (is_text(inner) or pa.types.is_null(inner)):
        raise DataError(f"{here}: its type is {values.type}; {_DOCUMENTS}")
    rows: list[list[str]] = values.to_pylist()
    bad = np.array([row is None or None in row for row in rows])
    refuse(bad, values, here, "every query has a list without gaps, which may be empty")
    return rows


def scored(table: pa.Table, where: str, most: float) -> tuple[pa.Table, tuple[str, ...], tuple[str, ...]]:
    """Return the queries of an evaluation split on whose order a metric depends, and what is told of them.

    Args:
        table: Rows in canonical form.
        where: Name of the split.
        most: Largest share of the queries that may be left out, ``data.max_skipped``.

    Returns:
        The table, warnings on queries that were left out, and a sentence on the others.

    Raises:
        DataError: A larger share, or all of them, would be left out.
    """
    faults, kept = RowErrors(strict=False), []
    for row, (name, relevance) in enumerate(
        zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)
    ):
        if reason := _reason(relevance):
            faults.add(row, str(name), reason)
        else:
            kept.append(row)
    notes = notes_on_skipped(faults.skipped, table.num_rows, where, most)
    if not kept:
        raise DataError(
            f"{where}: no query has both; {'; '.join(notes)}; add documents, or choose other rows"
        )
    chosen = table.take(from_numpy(np.array(kept, np.int64)))
    documents = len(list(chain.from_iterable(chosen["label"].to_pylist())))
    sentence = f"{where}: {len(kept)} queries are scored, with {documents} documents"
    return chosen, notes, (sentence,)


def _reason(relevance: list[float]) -> str | None:
    """Return why no metric depends on the order of a query's documents; None if one does."""
    if len(relevance) < 2:
        return "a query with fewer than 2 documents has no order"
    if max(relevance) <= 0:
        return "a query without a relevant document (positive) has no score"
    if min(relevance) > 0:
        return "a query with relevant documents alone (no negative) is right in any order"
    return None
