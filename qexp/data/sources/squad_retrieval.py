"""SQuAD as a retrieval: paragraphs are the corpus, and each question is a query with one relevant paragraph.

MTEB builds XQuADRetrieval and SQuADKorRetrieval from their sets like this: every distinct context is a
document, and the context of a question is the one that is relevant to it.
"""

from __future__ import annotations

import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.config import CORPUS, RetrievalTask
from qexp.data.arrow import is_text
from qexp.data.sources.beir import texts_to_train_on
from qexp.data.sources.judgments import judgment_column, own_ids, row_numbers
from qexp.data.sources.tables import Tables
from qexp.data.sources.validation import texts

RELEVANT = 1
"""Grade of a question's own paragraph."""


def joined(found: Tables, task: RetrievalTask, max_skipped: float) -> Tables:
    """Return the paragraphs of the evaluation splits, and the questions of each split with theirs.

    Raises:
        DataError: A question or a paragraph is missing.
    """
    read = {split: _texts(where, table) for split, (where, table) in found.tables.items()}
    evaluated = list(dict.fromkeys(task.evaluation.values()))
    contexts = dict.fromkeys(context for split in evaluated for context in read[split][1].to_pylist())
    numbers = {context: str(number) for number, context in enumerate(contexts)}
    where = " and ".join(found.tables[split][0] for split in evaluated)
    out = Tables({CORPUS: (where, _corpus(list(contexts)))}, found.statements, found.notes)
    out.statements += (f"{CORPUS}: {len(contexts)} distinct paragraphs of {where}",)
    for split in evaluated:
        own = [numbers[context] for context in read[split][1].to_pylist()]
        out.tables[split] = (found.tables[split][0], _queries(*found.tables[split], read[split][0], own))
    questions, paragraphs = read[task.train]
    seen = pa.chunked_array([paragraphs.unique()])
    out.tables[task.train] = (found.tables[task.train][0], texts_to_train_on(seen, questions.to_pylist()))
    return out


def _texts(where: str, table: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return the questions and the paragraphs of a table."""
    names = ("question", "context")
    question, context = (
        texts(table.column(name), f"{where}: column {name!r}", fields="data.columns") for name in names
    )
    return question, context


def _corpus(contexts: list[str]) -> pa.Table:
    ids = pa.array([str(number) for number in range(len(contexts))], pa.string())
    return pa.table({"id": row_numbers(len(contexts)), "_id": ids, "text": pa.array(contexts, pa.string())})


def _queries(where: str, table: pa.Table, questions: pa.ChunkedArray, own: list[str]) -> pa.Table:
    """Return the questions with their ids, or numbers where they have none, and their paragraphs."""
    count = len(own)
    has_ids = "id" in table.column_names and is_text(table.column("id").type)
    ids = own_ids(table.column("id") if has_ids else row_numbers(count), f"{where}: column 'id'")
    judged = judgment_column([[(document, RELEVANT)] for document in own])
    return pa.table({"id": row_numbers(count), "_id": ids, "text": questions, "label": judged})
