"""Tests of the adapter of a retrieval: rankings of a corpus, their scores, and which of them are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer

from qexp.artifacts.types import Tokens
from qexp.config import RetrievalTask
from qexp.data.checkpoints import Checkpoint
from qexp.data.tokenization.retrieval import tokenize_retrieval
from qexp.errors import ModelError
from qexp.models.inference import runner
from qexp.tasks import adapter_for, vectors_adapter
from qexp.tasks.base import Predictions
from qexp.tasks.fit import check_fit
from qexp.tasks.retrieval import RetrievalAdapter
from tests.conftest import experiment

DOCUMENTS = ["a cat", "the bird sees the old man", "a man", "a dog", "the old dog"]
IDS = ["d0", "d1", "d2", "d3", "d4"]
QUERIES = ["one cat", "a bird", "the man and the dog"]
LABELS = [
    [{"document": "d3", "relevance": 0}, {"document": "d0", "relevance": 1}],
    [{"document": "d1", "relevance": 2}],
    [{"document": "d2", "relevance": 1}, {"document": "d4", "relevance": 3}],
]


def task_of(*words: str) -> RetrievalTask:
    task = experiment("task=retrieval", "data.path=x", *words).task
    assert isinstance(task, RetrievalTask)
    return task


@pytest.fixture
def tokens(tiny_bert: Path, tmp_path: Path) -> Tokens:
    made, tokenizer = Tokens(tmp_path, ""), AutoTokenizer.from_pretrained(tiny_bert)
    (tmp_path / "facts.json").write_text('{"pad_id": 0}')
    names = ["d0", "q1", "q2"]
    tables = {
        "corpus": pa.table({"id": range(5), "_id": IDS, "text": DOCUMENTS}),
        "test": pa.table({"id": range(3), "_id": names, "text": QUERIES, "label": LABELS}),
    }
    for split, table in tables.items():
        tokenize_retrieval(table, task_of(), tokenizer, folder=made.split(split), split=split)
    return made


@pytest.mark.parametrize(("rows", "ignored"), [(None, False), (2, False), (None, True)])
def test_rankings_are_those_of_the_vectors(
    rows: int | None, ignored: bool, tokens: Tokens, tiny_bert: Path, runtime: Any
) -> None:
    adapter = RetrievalAdapter(task_of(f"task.ignore_identical_ids={ignored}"))
    model = adapter.finetuned(Checkpoint(tiny_bert, "", "bert"))
    done: list[int] = []
    result = adapter.predict(
        runner(model, runtime), tokens, "test", rows=rows, advance=done.append, batch_size=2
    )
    count, tokenizer = rows or 3, AutoTokenizer.from_pretrained(tiny_bert)
    with torch.inference_mode():
        sides = [
            torch.cat([model(**tokenizer(text, return_tensors="pt"))["sentence_embedding"] for text in texts])
            for texts in (QUERIES[:count], DOCUMENTS)
        ]
    cosines = (sides[0] @ sides[1].T).numpy()
    assert list(result.ids) == ["d0", "q1", "q2"][:count]
    for row, order in enumerate(np.argsort(-cosines, axis=1)):
        expected = [place for place in order if not (ignored and result.ids[row] == IDS[place])]
        assert result.predictions[row] == tuple(IDS[place] for place in expected)
        assert result.scores is not None
        np.testing.assert_allclose(result.scores[row], cosines[row, expected], atol=1e-5)
    relevant = sides[1][[0, 1, 4][:count]]
    np.testing.assert_allclose(result.logits, torch.cat([sides[0], relevant], dim=1), atol=1e-5)
    assert sum(done) == count and not result.broken
    assert adapter.score(result)["mrr_at_10"] is not None


def test_vectors_alone_need_no_more_than_the_relevant_documents(
    tokens: Tokens, tiny_bert: Path, runtime: Any
) -> None:
    model = RetrievalAdapter(task_of()).finetuned(Checkpoint(tiny_bert, "", "bert"))
    seen: list[int] = []

    def run(batch: dict[str, torch.Tensor]) -> Any:
        seen.append(len(batch["input_ids"]))
        return runner(model, runtime)(batch)

    whole, vectors = (
        adapter.predict(run, tokens, "test", rows=2, advance=lambda *_: None)
        for adapter in (adapter_for(task_of()), vectors_adapter(task_of()))
    )
    np.testing.assert_allclose(vectors.logits, whole.logits, atol=1e-5)
    assert sum(seen) == (2 + 5) + (2 + 2)
    assert {*vectors.predictions[0]} == {"d0", "d1"}


def test_vectors_that_are_no_numbers_are_counted(tokens: Tokens) -> None:
    def broken(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.full((len(batch["input_ids"]), 4), torch.nan)

    result = RetrievalAdapter(task_of()).predict(
        broken, tokens, "test", rows=None, advance=lambda *_: None, batch_size=2
    )
    assert result.broken == 3 + 5


def test_first_documents_decide_which_rankings_are_the_same() -> None:
    names = [f"d{number}" for number in range(12)]

    def found(ranking: list[str]) -> Predictions:
        rankings = np.empty(1, object)
        rankings[:] = [tuple(ranking)]
        return Predictions(np.array(["q"]), rankings, rankings, np.zeros((1, 2), np.float32))

    adapter, first = RetrievalAdapter(task_of()), found(names)
    assert adapter.same(first, found(names[:10][::-1] + names[10:])).all()
    assert adapter.same(first, found(names[2:])).all()
    assert not adapter.same(first, found([*names[3:10], "x", "y", "z"])).any()


def test_documents_have_to_fit_too(tokens: Tokens, tiny_bert: Path, tmp_path: Path) -> None:
    model = RetrievalAdapter(task_of()).finetuned(Checkpoint(tiny_bert, "", "bert"))
    ids = np.load(tokens.split("corpus") / "ids.npy")
    ids[0] = 10**6
    np.save(tokens.split("corpus") / "ids.npy", ids)
    with pytest.raises(ModelError, match="'corpus'"):
        check_fit(model, tokens, task_of())
