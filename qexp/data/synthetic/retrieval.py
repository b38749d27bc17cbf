"""A corpus, queries and judgments in BEIR's layout, made of the generated passages and questions."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped, unused-ignore]

from qexp.data.arrow import from_numpy, from_texts

SPLITS = {"train": "train", "test": "validation"}
"""Split of the questions, by the split that judges them."""


def retrieval(questions: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the tables ``corpus``, ``queries``, ``qrels/train`` and ``qrels/test``.

    Args:
        questions: Splits of the sample of SQuAD, whose paragraphs are the documents.
    """
    rows = {name: questions[split].to_pylist() for name, split in SPLITS.items()}
    contexts = dict.fromkeys((row["context"], row["title"]) for split in rows.values() for row in split)
    names = {context: f"d{number}" for number, (context, _) in enumerate(contexts)}
    numbers = count()
    tables = {
        "corpus": _texts([names[context] for context, _ in contexts], [context for context, _ in contexts])
    }
    tables["corpus"] = tables["corpus"].append_column("title", from_texts([title for _, title in contexts]))
    queries: list[tuple[str, str]] = []
    for split, made in rows.items():
        own = [f"q{next(numbers)}" for _ in made]
        queries += [(name, row["question"]) for name, row in zip(own, made, strict=True)]
        tables[f"qrels/{split}"] = pa.table(
            {
                "query-id": from_texts(own),
                "corpus-id": from_texts([names[row["context"]] for row in made]),
                "score": from_numpy(np.ones(len(made), np.int64)),
            }
        )
    return tables | {"queries": _texts([name for name, _ in queries], [text for _, text in queries])}


def _texts(names: list[str], texts: list[str]) -> pa.Table:
    return pa.table({"_id": from_texts(names), "text": from_texts(texts)})
