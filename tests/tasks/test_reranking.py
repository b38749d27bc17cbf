"""Rerankings: loss, targets, files of predictions, the gate, caveats, and what a head must be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from qexp.artifacts.types import Scores
from qexp.config import RerankingTask
from qexp.data.checkpoints import Checkpoint
from qexp.data.metrics.baselines import caveats
from qexp.data.metrics.candidate_places import gaps
from qexp.data.tokenization.candidates import tokenize_candidates
from qexp.errors import ModelError
from qexp.tasks.base import Predictions
from qexp.tasks.comparison import GateComparison, splits_of
from qexp.tasks.gate import judge
from qexp.tasks.reranking import CrossEncoder, RerankingAdapter
from qexp.tasks.scoring import read_predictions, write_predictions
from tests.conftest import experiment
from tests.support.tiny_runs import lively_bert

COUNTS = np.full(40, 8)


def task_of(*words: str) -> RerankingTask:
    task = experiment("task=reranking", "data=sample", "task.max_relevance=2", *words).task
    assert isinstance(task, RerankingTask)
    return task


def rows(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    found = np.empty(len(counts), object)
    found[:] = [tuple(part.tolist()) for part in np.split(values, np.cumsum(counts)[:-1])]
    return found


def predictions(logits: np.ndarray, counts: np.ndarray = COUNTS) -> Predictions:
    logits = logits.astype(np.float32)
    grades = np.tile([1.0] + [0.0] * (counts[0] - 1), len(counts))
    return Predictions(
        np.arange(len(counts)),
        rows(logits.astype(np.float64), counts),
        rows(grades, counts),
        logits[:, None],
        margins=gaps(logits, counts),
        words=counts,
    )


def verdict(change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Of an engine whose logits are ``change`` of torch's, over a floor of rounding errors."""
    draws = np.random.default_rng(0)
    logits = draws.normal(size=int(COUNTS.sum()))
    noise = draws.normal(scale=1e-5, size=(2, len(logits)))
    task = task_of()
    sides = [change(logits) + noise[0], logits, logits + noise[1]]
    return judge(GateComparison(task, splits_of(task, *([predictions(each)] for each in sides))))


def swapped(logits: np.ndarray) -> np.ndarray:
    """Of one query, the best and the worst document change places."""
    found = logits.copy()
    best, worst = int(np.argmax(found[:8])), int(np.argmin(found[:8]))
    found[[best, worst]] = found[[worst, best]]
    return found


def test_the_loss_is_the_cross_entropy_of_targets_between_0_and_1() -> None:
    logits, labels = torch.tensor([[2.0], [-1.0]]), torch.tensor([1.0, 0.5])
    loss = CrossEncoder.loss(None, logits, {"labels": labels})  # type: ignore[arg-type]
    expected = -(
        functional.logsigmoid(logits[0, 0])
        + 0.5 * (functional.logsigmoid(logits[1, 0]) + functional.logsigmoid(-logits[1, 0]))
    )
    assert loss.item() == pytest.approx(expected.item() / 2)


def test_tokens_are_those_of_pairs_and_targets_are_cut_at_1(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(lively_bert(tmp_path / "bert"))
    texts = {"query": ["the cat", "a dog"], "document": [["the film", "a bird sees"], ["the man"]]}
    table = pa.table({"id": [7, 9], **texts, "label": [[0.5, 3.0], [0.0]]})
    split = tokenize_candidates(table, task_of(), tokenizer, tmp_path / "tokens")
    assert (split.starts.tolist(), split.query_ids.tolist()) == ([0, 2, 3], [7, 9])
    batch = RerankingAdapter(task_of()).collate(split, np.arange(3), pad_id=tokenizer.pad_token_id)
    pairs = [("the cat", "the film"), ("the cat", "a bird sees"), ("a dog", "the man")]
    expected = tokenizer([one for one, _ in pairs], [two for _, two in pairs], padding=True)
    assert batch["input_ids"].tolist() == expected["input_ids"]
    assert batch["token_type_ids"].tolist() == expected["token_type_ids"]
    assert batch["labels"].tolist() == [0.25, 1, 0]


def test_files_of_predictions_hold_queries(tmp_path: Path) -> None:
    counts = np.array([2, 3])
    found = predictions(np.array([0.5, -1.0, 2.0, 0.25, 3.0]), counts)
    found = Predictions(**{**vars(found), "labels": rows(np.array([1.0, 0, 0, 2, 0]), counts)})
    out = Scores(tmp_path, "")
    write_predictions(found, out, "validation")
    again = read_predictions(out, "validation")
    assert again.predictions.tolist() == found.predictions.tolist() == [(0.5, -1.0), (2.0, 0.25, 3.0)]
    assert [*map(tuple, again.labels)] == found.labels.tolist()
    np.testing.assert_array_equal(again.logits, found.logits)
    np.testing.assert_array_equal(again.margins, found.margins)
    assert RerankingAdapter(task_of()).score(again) == RerankingAdapter(task_of()).score(found)


def test_the_gate_passes_rounding() -> None:
    found = verdict(lambda logits: logits)
    assert (found["verdict"], found["rows"], found["documents"]) == ("passed", 40, 320)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda logits: logits + 0.01, "is off by 0.01"),
        (lambda logits: 1.02 * logits, "factor of 1.02"),
        (swapped, "differ"),
        (lambda logits: np.where(np.arange(len(logits)) == 3, np.nan, logits), "not finite"),
    ],
    ids=["offset", "factor", "order of one query", "NaN"],
)
def test_the_gate_fails_other_scores(change: Callable[[np.ndarray], np.ndarray], told: str) -> None:
    found = verdict(change)
    assert found["verdict"] == "failed" and any(told in reason for reason in found["reasons"])


def test_scores_without_meaning_have_caveats() -> None:
    task = task_of()
    labels, scores = [[1.0, 0.0]] * 3, {"ndcg_at_10": 40.0, "mrr_at_10": 40.0}
    assert caveats([[2.0, 2.0]] * 3, labels, task, scores)["mrr_at_10"].startswith(
        "predicts 2 for all 3 rows"
    )
    reasons = caveats([[2.0, 1.0]] * 3, labels, task, scores)
    assert [*reasons] == ["ndcg_at_10"] and "81.55, that of a random order" in reasons["ndcg_at_10"]
    assert not caveats([[2.0, 1.0]] * 3, labels, task, {"ndcg_at_10": 90.0})


def test_a_head_of_two_outputs_is_refused(tmp_path: Path) -> None:
    bert = lively_bert(tmp_path / "bert")
    AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2).save_pretrained(bert)
    with pytest.raises(ModelError, match=r"has 2 outputs, task=reranking needs 1"):
        RerankingAdapter(task_of()).finetuned(Checkpoint(bert, "", "bert"))
