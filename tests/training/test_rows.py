"""Tests of the rows of a training: which are held out, and the batches of all steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qexp.artifacts.types import Tokens
from qexp.config import BatchSize, Finetune, Numerics, TrainingSetup
from qexp.data.checkpoints import Checkpoint
from qexp.data.microbatches import BatchSplit
from qexp.data.tokenization.candidates import CandidateSplit
from qexp.data.tokenization.windows import WindowSplit
from qexp.errors import ConfigError
from qexp.training.plans import FinetunePlan
from qexp.training.rows import TrainBatches, draw_rows
from tests.conftest import experiment
from tests.support.token_splits import text_split, written

SETUP = TrainingSetup(train_rows=None, train_steps=None, seed=3, numerics=Numerics())


def _setup(**fields: Any) -> TrainingSetup:
    return SETUP.model_copy(update=fields)


@pytest.mark.parametrize(("holdout", "count"), [(0.1, 20), (15, 15), (0.001, 1)])
def test_held_out_rows_are_drawn_by_the_seed_and_not_trained_on(holdout: float, count: int) -> None:
    split = text_split(200)
    first, other = (draw_rows(split, _setup(seed=seed), holdout) for seed in (3, 4))
    assert len(first.held_out) == count
    assert sorted([*first.trained, *first.held_out]) == list(range(200))
    assert first.held_out.tolist() == draw_rows(split, SETUP, holdout).held_out.tolist()
    assert first.held_out.tolist() != other.held_out.tolist()


def test_without_a_holdout_rows_are_drawn_as_ever() -> None:
    drawn = draw_rows(text_split(200), _setup(train_rows=50))
    assert drawn.trained.tolist() == sorted(np.random.default_rng(3).permutation(200)[:50])
    assert not len(drawn.held_out)
    assert set(draw_rows(text_split(200), _setup(train_rows=50), 9).held_out) <= set(drawn.trained)


def test_windows_of_a_question_and_documents_of_a_query_stay_together() -> None:
    none = np.zeros(0)
    rows = np.repeat(np.arange(30), np.arange(30) % 3 + 1)
    texts = vars(text_split(len(rows)))
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows))])
    splits = (
        WindowSplit(none, none, none, np.arange(len(rows) + 1), rows, none, none),
        CandidateSplit(**texts, starts=starts, query_ids=np.arange(30)),
    )
    for split in splits:
        drawn = draw_rows(split, SETUP, 10)
        assert len(np.unique(rows[drawn.held_out])) == 10
        assert not set(rows[drawn.held_out]) & set(rows[drawn.trained])


def test_some_rows_are_left_to_train_on() -> None:
    with pytest.raises(
        ConfigError, match=r"finetune.holdout=20: 20 rows are drawn .*; hold out fewer than 20"
    ):
        draw_rows(text_split(20), SETUP, 20)


def _plan(folder: Path, **fields: Any) -> FinetunePlan:
    tokens, task = written(text_split(300), folder), experiment("task=mrpc").task
    training = Finetune(learning_rate=1e-3, epochs=2.5, **fields)
    return FinetunePlan(tokens, Checkpoint(folder, "", ""), task, training, SETUP)


@pytest.mark.parametrize("limits", [{}, {"max_steps": 20}], ids=["whole", "cut short"])
def test_steps_are_those_of_the_batches(limits: dict[str, int], tmp_path: Path) -> None:
    plan = _plan(tmp_path, batch_tokens=256, holdout=50, **limits)
    steps = plan.steps(BatchSplit())
    lengths = text_split(300).lengths
    assert all(len(rows) * lengths[rows].max() <= 256 for rows in steps.rows)
    ends = steps.epoch_ends
    assert steps.count == ends[-1] and (not limits or steps.count == 20)
    first = np.concatenate(steps.rows[: ends[0]])
    selection = plan.selection(steps)
    assert selection is not None and selection.judge is not None and selection.marks == ends
    if not limits:
        assert sorted([*first, *selection.judge.rows]) == list(range(300))
        assert len(ends) == 3 and ends[2] - ends[1] == pytest.approx(ends[0] / 2, abs=2)


def test_processes_share_a_batch_of_tokens(tmp_path: Path) -> None:
    tokens, split = written(text_split(60), tmp_path), text_split(60)
    batches = TrainBatches(tokens, experiment("task=mrpc").task, BatchSize(1, 200), 1.0, setup=SETUP)
    whole = list(batches.of(np.arange(60), split, BatchSplit()))
    parts = [list(batches.of(np.arange(60), split, BatchSplit(devices=2, rank=rank))) for rank in (0, 1)]
    for batch, first, second in zip(whole, *parts, strict=True):
        rows = [len(part["labels"]) * float(part["share"] > 0) for part in (first, second)]
        assert sum(rows) == len(batch["labels"]) and abs(rows[0] - rows[1]) <= 1


def test_a_plan_that_chooses_nothing_keeps_the_last_weights(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    assert plan.selection(plan.steps(BatchSplit())) is None
    assert isinstance(plan.tokens, Tokens)
