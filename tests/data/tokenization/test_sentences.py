"""Tests of the tokens of an embedding: each text by itself, in the order of the pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from qexp.config import EmbeddingTask
from qexp.data.tokenization.sentences import tokenize_sentences
from tests.conftest import experiment

ONE = ["a cat", "the bird sees the old man and the cat and the dog and the bird", "", "a dog"]
OTHER = ["one cat", "a bird", "a man", "two dogs"]


def columns(*names: str) -> pa.Table:
    texts = dict(zip(("sentence1", "sentence2"), (ONE, OTHER), strict=True))
    chosen: dict[str, Any] = {name: pa.chunked_array([texts[name][:1], texts[name][1:]]) for name in names}
    return pa.table({"id": [7, 8, 9, 10], **chosen, "label": [0.5, 1.5, 2.5, 3.5]})


@pytest.mark.parametrize("names", [("sentence1", "sentence2"), ("sentence1",)], ids=len)
def test_each_text_is_a_row(names: tuple[str, ...], tiny_bert: Path, tmp_path: Path) -> None:
    task = experiment("task=stsb_embedding", "task.max_length=8").task
    assert isinstance(task, EmbeddingTask)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    done: list[int] = []
    split = tokenize_sentences(columns(*names), task, tokenizer, tmp_path / "split", advance=done.append)
    pairs = zip(ONE, OTHER, strict=True)
    texts = [text for pair in pairs for text in pair] if len(names) == 2 else ONE
    expected = tokenizer(texts, truncation=True, max_length=8)["input_ids"]
    rows = [split.ids[split.offsets[row] : split.offsets[row + 1]].tolist() for row in range(len(split))]
    assert rows == expected
    assert split.truncated == 1 and sum(done) == len(texts)
    assert split.row_ids.tolist() == [each for each in (7, 8, 9, 10) for _ in names]
    assert split.labels.tolist() == [each for each in (0.5, 1.5, 2.5, 3.5) for _ in names]
