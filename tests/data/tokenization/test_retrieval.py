"""Tests of the tokens of a retrieval: prefixes of queries and documents, ids and judgments beside them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from qexp.config import RetrievalTask
from qexp.data.tokenization.retrieval import document_ids, judgments, tokenize_retrieval
from tests.conftest import experiment

TEXTS = ["a cat", "the old dog"]
LABEL = [[{"document": "d1", "relevance": 2}], [{"document": "d2", "relevance": 1}]]


@pytest.mark.parametrize(
    ("split", "more", "prefixes"),
    [
        ("corpus", {"_id": ["d1", "d2"]}, ["a bird ", "a bird "]),
        ("test", {"_id": ["q1", "q2"], "label": LABEL}, ["one ", "one "]),
        ("train", {"is_query": [0, 1]}, ["a bird ", "one "]),
    ],
)
def test_prefixes(
    split: str, more: dict[str, list[object]], prefixes: list[str], tiny_bert: Path, tmp_path: Path
) -> None:
    words = ("task=retrieval", "data.path=x", "task.query_prefix='one '", "task.document_prefix='a bird '")
    task = experiment(*words).task
    assert isinstance(task, RetrievalTask)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    table = pa.table({"id": [0, 1], "text": TEXTS, **more})
    made = tokenize_retrieval(table, task, tokenizer, folder=tmp_path / "split", split=split)
    expected = tokenizer([prefix + text for prefix, text in zip(prefixes, TEXTS, strict=True)])["input_ids"]
    assert [made.ids[made.offsets[row] : made.offsets[row + 1]].tolist() for row in range(2)] == expected
    if split == "corpus":
        assert document_ids(tmp_path / "split") == ["d1", "d2"]
    if split == "test":
        found = judgments(tmp_path / "split", 1)
        assert list(found.ids) == ["q1"] and list(found.labels) == LABEL[:1]
