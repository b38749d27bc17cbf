"""Tests of the adapter of embeddings: cosines of pairs, their scores, the loss, and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoTokenizer

from qexp.artifacts.types import Tokens
from qexp.config import EmbeddingTask
from qexp.data.checkpoints import Checkpoint
from qexp.data.metrics.cosines import cosines
from qexp.data.tokenization.sentences import tokenize_sentences
from qexp.errors import TrainingError
from qexp.models.inference import runner
from qexp.tasks.base import Predictions
from qexp.tasks.embedding import Embedder, EmbeddingAdapter
from qexp.tasks.module import Optimization
from tests.conftest import experiment

ONE = ["a cat", "the bird sees the old man", "a man", "a dog", "the old dog"]
OTHER = ["one cat", "a bird", "the man and the dog", "two dogs", "a cat"]
SCORES = [5.0, 2.0, 3.0, 4.0, 1.0]


def task_of(*words: str) -> EmbeddingTask:
    task = experiment("task=stsb_embedding", *words).task
    assert isinstance(task, EmbeddingTask)
    return task


@pytest.fixture
def adapter() -> EmbeddingAdapter:
    return EmbeddingAdapter(task_of())


@pytest.fixture
def tokens(tiny_bert: Path, tmp_path: Path) -> Tokens:
    made = Tokens(tmp_path, "")
    (tmp_path / "facts.json").write_text('{"pad_id": 0}')
    rows = pa.table({"id": range(5), "sentence1": ONE, "sentence2": OTHER, "label": SCORES})
    tokenize_sentences(rows, task_of(), AutoTokenizer.from_pretrained(tiny_bert), made.split("validation"))
    return made


def found(predictions: list[float]) -> Predictions:
    values = np.array(predictions)
    return Predictions(np.arange(len(values)), values, values, values[:, None].astype(np.float32))


@pytest.mark.parametrize("rows", [None, 3])
def test_predictions_are_cosines_of_the_two_texts_of_a_row(
    rows: int | None, adapter: EmbeddingAdapter, tokens: Tokens, tiny_bert: Path, runtime: Any
) -> None:
    model = adapter.finetuned(Checkpoint(tiny_bert, "", "bert"))
    done: list[int] = []
    result = adapter.predict(
        runner(model, runtime), tokens, "validation", rows=rows, advance=done.append, batch_size=3
    )
    count = rows or 5
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    for row, texts in enumerate(zip(ONE[:count], OTHER[:count], strict=True)):
        with torch.inference_mode():
            one, other = (
                model(**tokenizer(text, return_tensors="pt"))["sentence_embedding"][0] for text in texts
            )
        assert result.predictions[row] == pytest.approx(float(one @ other), abs=1e-5)
        np.testing.assert_allclose(result.logits[row], torch.cat([one, other]), atol=1e-5)
    assert sum(done) == len(result.ids) == count and not result.broken
    assert adapter.score(result)["spearman"] == pytest.approx(
        100 * spearmanr(result.predictions, SCORES[:count]).statistic
    )


def test_the_loss_is_half_the_squared_distance_to_the_teacher(adapter: EmbeddingAdapter) -> None:
    ours, theirs = (torch.nn.functional.normalize(torch.randn(2, 6, 8), dim=-1)).unbind()
    loss = adapter.distance(ours, theirs, {}, 2.0)
    assert float(loss) == pytest.approx(float(((ours - theirs) ** 2).sum(-1).mean() / 2), abs=1e-6)
    assert float(adapter.distance(ours, ours, {}, 2.0)) == pytest.approx(0, abs=1e-6)


def test_there_is_no_loss_without_a_teacher(adapter: EmbeddingAdapter, tiny_bert: Path) -> None:
    model = adapter.finetuned(Checkpoint(tiny_bert, "", "bert"))
    module = Embedder(model, Optimization(1e-3, 0.0, 0.1, 10, 0))
    with pytest.raises(TrainingError, match=r"method\.distillation"):
        module.loss(torch.zeros(2, 8), {})


def test_ranks_decide_which_rows_are_the_same(adapter: EmbeddingAdapter) -> None:
    values = np.linspace(-0.9, 0.9, 100)
    assert adapter.same(found(list(values)), found(list(values**3))).all()
    other = values.copy()
    other[0] = 0.95  # from the first place to the last; all others move by one
    assert np.flatnonzero(~adapter.same(found(list(values)), found(list(other)))).tolist() == [0]


def test_cosines_are_those_of_vectors_of_any_norm() -> None:
    one, other = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    expected = [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(cosines(one, other), expected, rtol=1e-5)
