"""Tests of which weights of a training are kept: best, last, mean, and the early end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qexp.data.microbatches import MicroBatches
from qexp.records.schema import describe_kept
from qexp.training.selection import EvaluatedStep, Selection, marks, mean_of
from tests.support.tiny_training import TinyJudge, batch_of, largest_difference, plan, trained

LOSS = TinyJudge()
PERCENT = TinyJudge(score_name="accuracy", higher_is_better=True)
MARKS = (2, 4, 6, 8, 10, 12)


def _scored(*scores: float | None) -> list[EvaluatedStep]:
    return [EvaluatedStep(step, score) for step, score in zip(MARKS, scores, strict=False)]


@pytest.mark.parametrize(
    ("selection", "scores", "kept"),
    [
        (Selection(MARKS, LOSS), (3.0, 1.0, 2.0, 1.0), [4]),
        (Selection(MARKS, PERCENT), (3.0, 1.0, 3.0), [2]),
        (Selection(MARKS, PERCENT), (None, 0.0), [4]),
        (Selection(MARKS, LOSS, average=2), (3.0, 1.0, None, 2.0), [4, 8]),
        (Selection(MARKS, LOSS, average=3, best=False), (3.0, 1.0, 2.0, 4.0), [4, 6, 8]),
        (Selection(MARKS, None, average=4, best=False), (None, None, None), [2, 4, 6]),
    ],
)
def test_what_is_kept(selection: Selection, scores: tuple[float | None, ...], kept: list[int]) -> None:
    assert selection.kept(_scored(*scores)) == kept


def test_patience_counts_evaluations_since_the_best() -> None:
    selection = Selection(MARKS, LOSS, patience=2)
    assert not selection.is_over([])
    assert not selection.is_over(_scored(3.0, 1.0, 2.0))
    assert selection.is_over(_scored(3.0, 1.0, 2.0, 1.0)), "as good is no better"
    assert not selection.is_over(_scored(3.0, 1.0, 2.0, 0.9))
    assert not Selection(MARKS, LOSS).is_over(_scored(1.0, 2.0, 3.0, 4.0))


def test_evaluations_come_with_epochs_or_at_a_distance() -> None:
    steps = MicroBatches([np.arange(3)] * 7, batch_of, epoch_ends=(3, 6, 7))
    assert marks(steps, None) == (3, 6, 7)
    assert marks(steps, 2) == (2, 4, 6, 7)
    assert marks(steps, 7) == marks(steps, 9) == (7,)


def test_the_mean_is_that_of_state_dicts(tmp_path: Path) -> None:
    states = [
        {"weight": torch.randn(3, 4), "half": torch.randn(5).to(torch.bfloat16), "ids": torch.tensor([7, 8])}
        for _ in range(3)
    ]
    files = [tmp_path / f"{number}.pt" for number in range(3)]
    for state, file in zip(states, files, strict=True):
        torch.save(state, file)
    found = mean_of(files)
    for name in ("weight", "half"):
        by_hand = torch.stack([state[name].double() for state in states]).mean(0)
        assert found[name].dtype == states[0][name].dtype
        assert torch.allclose(found[name].double(), by_hand, atol=1e-7 if name == "weight" else 1e-2)
    assert torch.equal(found["ids"], states[0]["ids"])
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in mean_of(files[1:2]).items())


def _after(step: int, folder: Path, **fields: Any) -> dict[str, torch.Tensor]:
    """The weights of a training that ends after so many of the same steps, at the same rates."""
    whole = plan(folder, count=12, **fields)
    module = whole.module

    def scheduled(_: int, parts: Any) -> Any:
        return module(12, parts)

    short = replace(whole, steps_=whole.steps_[:step])
    object.__setattr__(short, "module", scheduled)
    return trained(short)[1]


def test_the_mean_of_the_last_weights_is_what_is_saved(tmp_path: Path) -> None:
    selection = Selection((4, 8, 12), None, average=2, best=False)
    facts, result = trained(plan(tmp_path / "mean", count=12, selection_=selection))
    eighth, twelfth = (_after(step, tmp_path / str(step)) for step in (8, 12))
    by_hand = {name: (tensor + twelfth[name]) / 2 for name, tensor in eighth.items()}
    assert largest_difference(result, by_hand) < 1e-7
    assert facts["selection"]["kept"] == [8, 12] and facts["selection"]["metric"] is None
    assert (facts["steps"], facts["planned_steps"]) == (12, 12)


def test_a_training_without_progress_ends_and_keeps_its_best_weights(tmp_path: Path) -> None:
    """At such a rate, each step is one too far."""
    selection = Selection(MARKS, LOSS, patience=2)
    facts, result = trained(plan(tmp_path / "whole", count=12, rate=0.3, selection_=selection))
    found = facts["selection"]
    best = found["step"][int(np.argmin(found["score"]))]
    assert found["stopped"] and found["kept"] == [best] and found["rows"] == LOSS.count
    assert facts["steps"] == len(facts["loss"]) == best + 4 < facts["planned_steps"]
    assert found["kept_score"] == min(found["score"])
    assert largest_difference(result, _after(best, tmp_path / "short", rate=0.3)) == 0
    assert len(list((tmp_path / "whole").glob("weights-*.pt"))) <= 2, "weights that no longer count are gone"
    told = describe_kept(found)
    assert told.startswith(f"the weights of step {best}, loss ")
    assert told.endswith(f"on 40 held-out rows; patience ended it at step {best + 4}")


@pytest.mark.parametrize(("part", "average"), [(7, 1), (9, 3)], ids=["before an evaluation", "behind one"])
def test_a_killed_training_decides_as_an_uninterrupted_one(part: int, average: int, tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "count": 12, "rate": 3e-3, "dropout": True,
        "selection_": Selection(MARKS, LOSS, patience=5, average=average),
    }  # fmt: skip
    whole, expected = trained(plan(tmp_path / "whole", **fields))
    with pytest.raises(RuntimeError, match="no luck"):
        trained(plan(tmp_path / "cut", **fields, trouble=("raise", 0, part)))
    facts, result = trained(plan(tmp_path / "cut", **fields))
    assert facts["resumed_at"] in (6, 8)
    assert facts["selection"] == whole["selection"] and facts["loss"] == whole["loss"]
    assert all(torch.equal(expected[name], result[name]) for name in expected)


@pytest.mark.slow
def test_two_processes_keep_what_one_does(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "count": 12,
        "rate": 0.3,
        "selection_": Selection(MARKS, LOSS, patience=2, average=2),
    }
    alone, expected = trained(plan(tmp_path / "one", **fields))
    facts, result = trained(plan(tmp_path / "two", **fields, devices=2))
    assert facts["selection"]["kept"] == alone["selection"]["kept"]
    assert facts["steps"] == alone["steps"] < 12
    assert facts["selection"]["score"] == pytest.approx(alone["selection"]["score"], abs=1e-2)
    assert largest_difference(expected, result) < 1e-2
