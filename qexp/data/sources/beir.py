"""Tables of BEIR's layout: a corpus, queries, and judgments of queries by split.

Layout and rules are those of BEIR (Thakur et al. 2021, "BEIR: A Heterogeneous Benchmark for Zero-shot
Evaluation of Information Retrieval Models") and MTEB, whose data sets have them, too: the text of a document
is its title, a blank and its text, and a query is evaluated in the splits that judge it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]
import pyarrow.compute as pc  # type: ignore[import-untyped, unused-ignore]

from qexp.config import CORPUS, RetrievalTask
from qexp.data.arrow import as_strings, from_numpy
from qexp.data.skipped import RowErrors, notes_on_skipped
from qexp.data.sources.judgments import as_ids, as_relevance, judgment_column, own_ids, row_numbers
from qexp.data.sources.tables import QRELS, QUERIES, Tables
from qexp.data.sources.validation import texts
from qexp.errors import DataError

Judged = Mapping[str, Mapping[str, int]]
"""Relevance by document, by query."""


def joined(found: Tables, task: RetrievalTask, max_skipped: float) -> Tables:
    """Return the corpus, and the queries of each split with their judgments.

    Raises:
        DataError: An id, a text or a judgment is missing or invalid, or more judgments than ``max_skipped``
            name documents or queries that do not exist.
    """
    corpus, queries = _documents(*found.tables[CORPUS]), _with_ids(*found.tables[QUERIES])
    out = Tables({CORPUS: (found.tables[CORPUS][0], corpus)}, found.statements, found.notes)
    out.notes += _notes_on_empty(corpus, found.tables[CORPUS][0])
    names = set(corpus["_id"].to_pylist())
    known = dict(zip(queries["_id"].to_pylist(), queries["text"].to_pylist(), strict=True))
    judged: dict[str, Judged] = {}
    for split in dict.fromkeys([task.train, *task.evaluation.values()]):
        if (entry := found.tables.get(f"{QRELS}/{split}")) is not None:
            judged[split], notes = _judgments(*entry, documents=names, queries=known, most=max_skipped)
            out.notes += notes
    for split in dict.fromkeys(task.evaluation.values()):
        where = found.tables[f"{QRELS}/{split}"][0]
        out.tables[split] = (where, _judged_queries(queries, judged[split], where))
        out.statements += (_split_statement(split, out.tables[split][1].num_rows, queries.num_rows),)
    held = {query for split in task.evaluation.values() for query in judged[split]}
    seen = [query for query in judged.get(task.train, {}) if query not in held]
    where = found.tables.get(f"{QRELS}/{task.train}", found.tables[CORPUS])[0]
    out.tables[task.train] = (where, texts_to_train_on(corpus["text"], [known[query] for query in seen]))
    out.statements += (_training_statement(task, corpus.num_rows, len(seen), judged),)
    return out


def texts_to_train_on(documents: pa.ChunkedArray, queries: list[str]) -> pa.Table:
    """Return the texts that calibration and training may see: documents, then queries (``is_query`` is 1)."""
    chunks = [*documents.chunks, pa.array(queries, pa.string())]
    marks = np.repeat(np.array([0, 1], np.int64), [len(documents), len(queries)])
    count = len(documents) + len(queries)
    columns = {"id": row_numbers(count), "text": pa.chunked_array(chunks), "is_query": from_numpy(marks)}
    return pa.table(columns)


def _documents(where: str, table: pa.Table) -> pa.Table:
    """Return the corpus with titles in front of the texts, as BEIR joins them."""
    found = _with_ids(where, table)
    if "title" not in table.column_names:
        return found
    here = f"{where}: column 'title'"
    title = texts(pc.fill_null(as_strings(table.column("title")), ""), here, fields="")
    whole = pc.utf8_trim_whitespace(pc.binary_join_element_wise(title, found["text"], " "))
    return found.set_column(2, "text", whole)


def _with_ids(where: str, table: pa.Table) -> pa.Table:
    ids = own_ids(table.column("_id"), f"{where}: column '_id'")
    text = texts(table.column("text"), f"{where}: column 'text'", fields="")
    return pa.table({"id": row_numbers(table.num_rows), "_id": ids, "text": text})


def _notes_on_empty(corpus: pa.Table, where: str) -> tuple[str, ...]:
    empty = corpus.filter(pc.equal(corpus["text"], ""))["_id"].to_pylist()
    if not empty:
        return ()
    more = ", ..." if len(empty) > 1 else ""
    return (f"{where}: {len(empty)} documents have no text, such as {empty[0]}{more}; they are ranked, too",)


def _judgments(
    where: str, table: pa.Table, *, documents: set[str], queries: Mapping[str, str], most: float
) -> tuple[Judged, tuple[str, ...]]:
    """Return the judgments of a split, and notes on those that were skipped.

    Raises:
        DataError: A grade is no integer, two grades of one pair differ, or too many are skipped.
    """
    of_query = as_ids(table["query-id"], f"{where}: column 'query-id'").to_pylist()
    of_corpus = as_ids(table["corpus-id"], f"{where}: column 'corpus-id'").to_pylist()
    grades = as_relevance(table["score"], f"{where}: column 'score'").tolist()
    faults, found = RowErrors(strict=False), defaultdict[str, dict[str, int]](dict)
    for row, (query, document, grade) in enumerate(zip(of_query, of_corpus, grades, strict=True)):
        if query not in queries:
            faults.add(row, query, "the query of the judgment is unknown")
        elif not queries[query].strip():
            faults.add(row, query, "the query of the judgment has no text")
        elif document not in documents:
            faults.add(row, document, "the document of the judgment is unknown")
        elif found[query].setdefault(document, grade) != grade:
            raise DataError(
                f"{where}, row {row} (counted from 0): query {query!r} and document {document!r} have "
                f"relevance {grade} here and {found[query][document]} before; keep one of the rows"
            )
    notes = notes_on_skipped(faults.skipped, len(grades), where, most)
    return {query: judged for query, judged in found.items() if judged}, notes


def _judged_queries(queries: pa.Table, judged: Judged, where: str) -> pa.Table:
    """Return the queries that have judgments, in the order of the queries, with these as ``label``.

    Raises:
        DataError: There are none.
    """
    kept = [row for row, name in enumerate(queries["_id"].to_pylist()) if name in judged]
    if not kept:
        raise DataError(f"{where}: no query has a judgment; name the queries of this split in query-id")
    table = queries.take(from_numpy(np.array(kept, np.int64)))
    lists = [list(judged[name].items()) for name in table["_id"].to_pylist()]
    columns = {"id": row_numbers(len(kept)), "_id": table["_id"], "text": table["text"]}
    return pa.table({**columns, "label": judgment_column(lists)})


def _split_statement(split: str, kept: int, all_queries: int) -> str:
    others = (
        f"; the other {all_queries - kept} have none there and are left out" if kept < all_queries else ""
    )
    return f"{split}: {kept} of {all_queries} queries have judgments{others}"


def _training_statement(
    task: RetrievalTask, documents: int, queries: int, judged: Mapping[str, Judged]
) -> str:
    absent = "" if task.train in judged else f" ({QRELS}/{task.train} is absent)"
    return (
        f"{task.train}: calibration and training read {documents} documents and {queries} queries{absent}, "
        "none of them evaluated"
    )
