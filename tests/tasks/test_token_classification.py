"""Tags of words: loss, distance to a teacher, predictions of lost words, files, heads, and the gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForTokenClassification, AutoTokenizer

from qexp.artifacts.types import FACTS, Scores, Tokens
from qexp.config import TokenTask
from qexp.data.checkpoints import Checkpoint
from qexp.data.metrics.baselines import caveats
from qexp.data.tokenization.words import tokenize_words
from qexp.errors import ModelError
from qexp.reporting.predictions import Evaluation
from qexp.tasks.base import Predictions
from qexp.tasks.comparison import GateComparison, first_rows, splits_of
from qexp.tasks.gate import judge
from qexp.tasks.scoring import read_predictions, write_predictions
from qexp.tasks.token_classification import Tagger, TokenAdapter

LABELS = ("O", "B-X", "I-X")
LABELS_OF_BATCH = torch.tensor([[-100, 1, 2, -100], [-100, 0, -100, -100]])


def task_of(**fields: Any) -> TokenTask:
    given = {"labels": LABELS, "metrics": ("f1_span", "token_accuracy"), **fields}
    return TokenTask(
        kind="token_classification", name="any", evaluation={"validation": "validation"}, **given
    )


def tags(logits: np.ndarray, words: np.ndarray) -> np.ndarray:
    ids, rows = np.split(logits.argmax(1), np.cumsum(words)[:-1]), np.empty(len(words), object)
    rows[:] = [tuple(LABELS[each] for each in row) for row in ids]
    return rows


def predictions(logits: np.ndarray, words: np.ndarray, gold: np.ndarray) -> Predictions:
    ordered = np.sort(logits, axis=1)
    return Predictions(
        np.arange(len(words)),
        tags(logits, words),
        tags(gold, words),
        logits.astype(np.float32),
        margins=ordered[:, -1] - ordered[:, -2],
        words=words,
    )


def verdict(change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Of an engine whose logits are ``change`` of torch's, over a floor of rounding errors."""
    draws = np.random.default_rng(0)
    words = draws.integers(1, 12, 100)
    count = int(words.sum())
    logits, gold = draws.normal(size=(2, count, 3))
    noise = draws.normal(scale=1e-5, size=(2, count, 3))
    sides = [change(logits) + noise[0], logits, logits + noise[1]]
    task = task_of()
    return judge(GateComparison(task, splits_of(task, *([predictions(each, words, gold)] for each in sides))))


def test_the_loss_is_a_mean_over_words() -> None:
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    losses = [
        functional.cross_entropy(logits[row, place], LABELS_OF_BATCH[row, place])
        for row, place in ((0, 1), (0, 2), (1, 1))
    ]
    loss = Tagger.loss(None, logits, {"labels": LABELS_OF_BATCH})  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item())
    none = Tagger.loss(None, logits, {"labels": torch.full((2, 4), -100)})  # type: ignore[arg-type]
    assert none.item() == 0


def test_distance_and_counts_are_of_words() -> None:
    ours, theirs = torch.randn(2, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    adapter, batch, at = TokenAdapter(task_of()), {"labels": LABELS_OF_BATCH}, LABELS_OF_BATCH != -100
    expected = (
        functional.kl_div(ours[at].log_softmax(-1), theirs[at].softmax(-1), reduction="none").sum(-1).mean()
    )
    assert adapter.distance(ours, theirs, batch, 1.0).item() == pytest.approx(expected.item(), rel=1e-5)
    assert adapter.loss_counts_per_row(batch).tolist() == [2, 1]


def test_lost_words_are_outside_and_batches_do_not_change_the_order(tiny_bert: Path, tmp_path: Path) -> None:
    tokenizer, task = AutoTokenizer.from_pretrained(tiny_bert), task_of(max_length=8)
    rows = [["cat"] * 9, ["dog", "", "cat"], ["the"]]
    gold = [["B-X"] * 9, ["O", "I-X", "B-X"], ["I-X"]]
    columns = {"id": [7, 8, 9], "tokens": rows, "label": gold}
    tokens = Tokens(tmp_path, "")
    tokenize_words(pa.table(columns), task, tokenizer, tokens.split("validation"))
    (tmp_path / FACTS).write_text('{"pad_id": 0}')

    def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The tag of each token is that of its gold label, or B-X."""
        return functional.one_hot(batch["labels"].clamp(min=0), 3).float()

    adapter = TokenAdapter(task)
    found = adapter.predict(run, tokens, "validation", rows=None, advance=lambda count: None, batch_size=2)
    assert found.ids.tolist() == [7, 8, 9]
    assert found.predictions.tolist() == [
        ("B-X",) * 6 + ("O",) * 3, ("O", "O", "B-X"), ("I-X",),
    ]  # fmt: skip
    assert [list(each) for each in found.labels] == gold
    assert found.words is not None and found.words.tolist() == [6, 2, 1]
    assert found.logits.shape == (9, 3) and found.broken == 0
    scores = adapter.score(found)
    assert scores == {"f1_span": pytest.approx(100 * 14 / 17), "token_accuracy": pytest.approx(100 * 9 / 13)}
    part = adapter.predict(run, tokens, "validation", rows=2, advance=lambda count: None)
    cut = first_rows(found, 2)
    assert part.predictions.tolist() == cut.predictions.tolist()
    assert (part.logits == cut.logits).all() and len(cut.logits) == 8


def test_files_keep_words_of_rows(tmp_path: Path) -> None:
    logits, words = np.random.default_rng(0).normal(size=(6, 3)), np.array([2, 0, 4])
    written = predictions(logits, words, logits)
    scores = Scores(tmp_path, tmp_path.name)
    scores.predictions("validation").parent.mkdir(parents=True, exist_ok=True)
    write_predictions(written, scores, "validation")
    found = read_predictions(scores, "validation")
    assert found.predictions.tolist() == written.predictions.tolist()
    assert found.words is not None and found.words.tolist() == [2, 0, 4]
    assert (found.logits == written.logits).all() and (found.margins == written.margins).all()
    rows = Evaluation(None, "fp32", tmp_path).rows("validation")  # type: ignore[arg-type]
    assert rows.broken == 0 and rows.labels.tolist() == written.labels.tolist()


def test_a_head_is_put_in_the_tasks_order(tiny_bert: Path, tmp_path: Path) -> None:
    names = ("B-X", "O", "I-X")
    made = AutoModelForTokenClassification.from_pretrained(tiny_bert, id2label=dict(enumerate(names)))
    made.save_pretrained(tmp_path)
    start = Checkpoint(tmp_path, "", "mine")
    found = TokenAdapter(task_of()).finetuned(start)
    expected = made.classifier.weight[[1, 0, 2]]
    assert torch.equal(found.classifier.weight, expected)
    assert list(found.config.id2label.values()) == list(LABELS)
    with pytest.raises(ModelError, match="B-Y"):
        TokenAdapter(task_of(labels=("O", "B-Y", "I-Y"))).finetuned(start)
    with pytest.raises(ModelError, match="3 outputs"):
        TokenAdapter(task_of(labels=("O", "B-X"))).finetuned(start)


def test_rounding_passes_with_words_and_rows_counted() -> None:
    sound = verdict(lambda logits: logits)
    assert (sound["verdict"], sound["rows"], sound["agreement"]) == ("passed", 100, 100.0)
    assert 100 < sound["words"] < 1200


def test_a_shifted_tag_fails_the_gate() -> None:
    shifted = verdict(lambda logits: logits + np.array([0.0, 0.3, 0.0]))
    assert not shifted["passed"] and shifted["agreement"] < 100
    assert any("output 1" in reason for reason in shifted["reasons"])


def test_one_word_far_from_its_margin_fails_the_gate() -> None:
    def exchange(logits: np.ndarray) -> np.ndarray:
        ordered, changed = np.sort(logits, axis=1), logits.copy()
        word = int((ordered[:, -1] - ordered[:, -2]).argmax())
        changed[word] = -logits[word]
        return changed

    found = verdict(exchange)
    assert not found["passed"]
    assert found["agreement"] == pytest.approx(100 * (1 - 1 / found["words"]))


def test_one_tag_for_all_words_is_told() -> None:
    rows = [["O", "O"], ["O"]]
    assert "'O'" in caveats(rows, [["B-X", "O"], ["O"]], task_of(), {"f1_span": 0.0})["f1_span"]
    found = [["O", "B-X"], ["O"]]
    assert caveats(found, rows, task_of(), {"f1_span": 0.0, "token_accuracy": 66.0}) == {}


def test_accuracy_of_the_most_frequent_tag_is_told() -> None:
    found, gold = [["O", "B-X", "O"], ["I-X"]], [["O", "O", "O"], ["B-X"]]
    told = caveats(found, gold, task_of(), {"f1_span": 50.0, "token_accuracy": 75.0})
    assert told.keys() == {"token_accuracy"} and "75.00" in told["token_accuracy"]
    assert caveats(found, gold, task_of(), {"token_accuracy": 75.1}) == {}
