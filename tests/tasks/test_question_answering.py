"""Tests of question answering: loss, batches, predictions and scores, against plain computations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.text import SQuAD

from qexp.artifacts.types import Tokens
from qexp.config import QuestionTask
from qexp.context import RunContext
from qexp.data.sources.question_rows import checked
from qexp.data.tokenization.prepare import prepare_questions
from qexp.data.window_answers import first_windows
from qexp.models.loading import load_saved, logits_of, save
from qexp.tasks.question_answering import QuestionAdapter, span_loss
from qexp.tasks.scoring import read_predictions, score_splits
from tests.conftest import experiment
from tests.support.question_rows import NONE, Row, said, table_of

CONTEXT = "the old cat sees the red bird in the house . " * 4 + "the woman likes the new river ."
ROWS: list[Row] = [
    ("who sees the bird ?", CONTEXT, said("old cat", 4)),
    ("who likes the river ?", CONTEXT, said("woman", CONTEXT.index("woman"))),
    ("what is red ?", "the red tree .", said("tree", 8)),
]


def task_of(*words: str, name: str = "squad") -> QuestionTask:
    task = experiment(
        f"task={name}", "task.max_length=32", "task.doc_stride=8", "task.max_question=12", *words
    ).task
    assert isinstance(task, QuestionTask)
    return task


def prepared(task: QuestionTask, rows: list[Row], tiny_bert: Path, folder: Path) -> Tokens:
    from transformers import AutoTokenizer

    tokenizer, tokens = AutoTokenizer.from_pretrained(tiny_bert), Tokens(folder, "")
    table = checked(table_of(rows), task, "rows")
    for split in ("train", "validation"):
        prepare_questions(
            table, task, tokenizer, folder=tokens.split(split), split=split, advance=lambda rows: None
        )
    (folder / "facts.json").write_text(
        f'{{"pad_id": 0, "rows": {{"train": {len(rows)}, "validation": {len(rows)}}}}}'
    )
    return tokens


def knowing(split: Any, *, last: bool = True) -> Any:
    """A model that knows where the answers lie: the scores of a batch, told from its tokens."""

    def run(batch: dict[str, Tensor]) -> Tensor:
        ids = batch["input_ids"]
        logits = torch.zeros(*ids.shape, 2)
        for number, row in enumerate(ids):
            window = next(
                w for w in range(len(split)) if row[batch["attention_mask"][number] == 1].tolist()
                == split.ids[split.offsets[w] : split.offsets[w + 1]].tolist()
            )  # fmt: skip
            logits[number, split.starts[window], 0] = 5
            logits[number, split.ends[window], 1] = 5
        return logits

    return run


def test_the_loss_is_the_mean_of_two_cross_entropies_without_padding() -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 5, 2), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    places = torch.tensor([[1, 4], [0, 2]])
    rows = [(logits[0], places[0]), (logits[1, :3], places[1])]
    plain = [
        functional.cross_entropy(scores[:, side][None], place[side][None])
        for scores, place in rows
        for side in (0, 1)
    ]
    assert span_loss(logits, places, mask) == pytest.approx(float(torch.stack(plain).mean()), rel=1e-6)
    noisy = torch.where(mask[:, :, None] == 1, logits, torch.full_like(logits, 50.0))
    assert span_loss(noisy, places, mask) == span_loss(logits, places, mask)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "mobilebert"])
def test_every_architecture_gets_a_head_of_two_scores(
    architecture: str, tiny_models: Any, tmp_path: Path
) -> None:
    from qexp.data.checkpoints import locate

    asked = experiment("task=squad", f"model.name={tiny_models(architecture)}")
    start, adapter = locate(asked.model), QuestionAdapter(task_of())
    first, again = (adapter.pretrained(start, Tokens(tmp_path, ""), 3) for _ in range(2))
    assert torch.equal(first.qa_outputs.weight, again.qa_outputs.weight)
    ids = torch.tensor([[1, 2, 3, 4]])
    logits = logits_of(first(ids))
    assert logits.shape == (1, 4, 2)
    save(first, tmp_path / "saved")
    assert torch.equal(logits_of(load_saved(tmp_path / "saved")(ids)), logits)


def test_answers_are_those_that_the_scores_point_to(
    tiny_bert: Path, tmp_path: Path, runtime: RunContext
) -> None:
    task = task_of()
    tokens = prepared(task, ROWS, tiny_bert, tmp_path)
    train = QuestionAdapter(task).split(tokens.split("train"))
    assert len(train) > len(ROWS)  # a context of several windows
    out = _scores(tmp_path / "scores")
    scored = score_splits(knowing(train), tokens, task, rows=None, out=out, title="evaluate", ctx=runtime)
    result = read_predictions(out, "validation")
    assert list(result.predictions) == ["old cat", "woman", "tree"]
    assert [list(each) for each in result.labels] == [["old cat"], ["woman"], ["tree"]]
    assert list(result.ids) == ["q0", "q1", "q2"]
    assert scored.metrics == {"f1": 100.0, "exact_match": 100.0}
    assert scored.notes == {}


def test_scores_are_those_of_an_independent_metric(
    tiny_bert: Path, tmp_path: Path, runtime: RunContext
) -> None:
    task = task_of()
    tokens = prepared(task, ROWS, tiny_bert, tmp_path)
    generator = torch.Generator().manual_seed(1)

    def guess(batch: dict[str, Tensor]) -> Tensor:
        return torch.randn(*batch["input_ids"].shape, 2, generator=generator)

    out = _scores(tmp_path / "scores")
    metrics = score_splits(guess, tokens, task, rows=None, out=out, title="evaluate", ctx=runtime).metrics
    result = read_predictions(out, "validation")
    oracle = SQuAD()(
        [
            {"id": key, "prediction_text": text}
            for key, text in zip(result.ids, result.predictions, strict=True)
        ],
        [
            {"id": key, "answers": {"text": list(golds), "answer_start": [0] * len(golds)}}
            for key, golds in zip(result.ids, result.labels, strict=True)
        ],
    )
    assert metrics["f1"] == pytest.approx(float(oracle["f1"]), rel=1e-6)
    assert metrics["exact_match"] == pytest.approx(float(oracle["exact_match"]), rel=1e-6)


def test_only_the_first_rows_are_read(tiny_bert: Path, tmp_path: Path, runtime: RunContext) -> None:
    task = task_of()
    tokens = prepared(task, ROWS, tiny_bert, tmp_path)
    adapter, seen = QuestionAdapter(task), []
    train = adapter.split(tokens.split("train"))
    moved: list[float] = []
    run = knowing(train)
    result = adapter.predict(
        lambda batch: seen.append(len(batch["input_ids"])) or run(batch),
        tokens,
        "validation",
        rows=2,
        advance=moved.append,
    )
    assert len(result.ids) == 2
    assert sum(seen) == len(first_windows(train, 2)) < len(train)
    assert sum(moved) == pytest.approx(2)


def test_without_answer_the_null_score_decides(tiny_bert: Path, tmp_path: Path, runtime: RunContext) -> None:
    rows = [*ROWS[:2], ("who flies ?", "red tree .", NONE)]
    task = task_of(name="squad_v2")
    tokens = prepared(task, rows, tiny_bert, tmp_path)
    train = QuestionAdapter(task).split(tokens.split("train"))
    out = _scores(tmp_path / "scores")
    scored = score_splits(knowing(train), tokens, task, rows=None, out=out, title="evaluate", ctx=runtime)
    assert list(read_predictions(out, "validation").predictions) == ["old cat", "woman", ""]
    assert scored.metrics == {"f1": 100.0, "exact_match": 100.0}
    assert scored.notes["validation"]["NoAns_exact"] == 100.0
    never = task_of("task.search.null_threshold=1000", name="squad_v2")
    again = score_splits(knowing(train), tokens, never, rows=None, out=out, title="evaluate", ctx=runtime)
    assert again.notes["validation"]["NoAns_exact"] == 0.0
    assert never.without_decoding == task.without_decoding  # tokens and trainings do not see the threshold


def test_scores_that_are_no_numbers_leave_no_metric(
    tiny_bert: Path, tmp_path: Path, runtime: RunContext
) -> None:
    task = task_of()
    tokens = prepared(task, ROWS, tiny_bert, tmp_path)

    def broken(batch: dict[str, Tensor]) -> Tensor:
        return torch.full((*batch["input_ids"].shape, 2), torch.nan)

    scored = score_splits(
        broken, tokens, task, rows=None, out=_scores(tmp_path / "scores"), title="evaluate", ctx=runtime
    )
    assert scored.metrics == {"f1": None, "exact_match": None}
    assert scored.notes["validation"]["broken_windows"] == len(
        QuestionAdapter(task).split(tokens.split("validation"))
    )
    assert "no numbers" in runtime.console.warnings[0]


def _scores(folder: Path) -> Any:
    from qexp.artifacts.types import Scores

    folder.mkdir()
    return Scores(folder, "")
