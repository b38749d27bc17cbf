"""The parity stage: the rows that it compares, and its artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qexp.artifacts.types import NoiseFloor, Scores
from qexp.config import TextTask
from qexp.pipeline.stages.parity import compare
from qexp.tasks.base import Predictions
from qexp.tasks.classification import margins
from qexp.tasks.scoring import read_predictions, write_predictions
from tests.conftest import experiment

MRPC, MNLI, SQUAD = (experiment(f"task={name}").task for name in ("mrpc", "mnli", "squad"))


def _scores(folder: Path, task: TextTask, logits: np.ndarray[Any, Any]) -> Scores:
    folder.mkdir()
    scores, labels = Scores(folder, "key"), np.arange(len(logits)) % 2
    found = Predictions(
        np.arange(len(logits)), logits.argmax(1), labels, logits.astype(np.float32), margins=margins(logits)
    )
    for name in task.evaluation:
        write_predictions(found, scores, name)
    (folder / "facts.json").write_text(json.dumps({"metrics": {}}))
    return scores


def _compared(folder: Path, task: TextTask, engine: Any, torch: Any, **more: Any) -> dict[str, Any]:
    names = {"engine": engine, "torch": torch, "floor": torch}
    made = [_scores(folder / name, task, logits) for name, logits in names.items()]
    _scores(folder / "floor" / "steps", task, torch[:20])
    return compare(made[0], made[1], NoiseFloor(folder / "floor", "key"), task, **more)


def test_all_splits_count(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(300, 3))
    found = _compared(tmp_path, MNLI, logits, logits)
    assert (found["rows"], found["verdict"]) == (600, "passed")


def test_only_the_first_rows_are_compared_where_so_many_are_asked_for(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(300, 2))
    wrong_behind = logits.copy()
    wrong_behind[100:] *= -1
    assert _compared(tmp_path, MRPC, wrong_behind, logits, rows=100)["rows"] == 100
    (tmp_path / "all").mkdir()
    assert _compared(tmp_path / "all", MRPC, wrong_behind, logits)["verdict"] == "failed"


def test_windows_that_broke_fail_although_every_answer_has_a_score(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(300, 2))
    found = _compared(tmp_path, MRPC, logits, logits, broken=1)
    assert found["verdict"] == "failed"
    assert "finite" in found["reasons"][0]


def test_several_answers_to_a_question_come_back_as_lists(tmp_path: Path) -> None:
    """All with two answers: numpy by itself makes arrays, or one matrix, of them."""
    texts, golds = np.array(["a b", "c"], object), np.empty(2, object)
    golds[:] = [["a", "b"], ["c", "d"]]
    scores = np.array([[1.0, 0.0], [2.0, 0.0]], np.float32)
    torch = Predictions(np.array(["1", "2"]), texts, golds, scores, margins=np.array([0.5, np.inf]))
    for name in ("engine", "torch", "floor", "floor/steps"):
        (tmp_path / name).mkdir()
        write_predictions(torch, Scores(tmp_path / name, ""), "validation")
    made = (Scores(tmp_path / name, "") for name in ("engine", "torch"))
    found = compare(*made, NoiseFloor(tmp_path / "floor", ""), SQUAD)
    assert found["verdict"] == "passed"


@pytest.mark.parametrize("known", [True, False])
def test_margins_are_filed_with_the_predictions_where_they_are_known(known: bool, tmp_path: Path) -> None:
    scores = Scores(tmp_path, "key")
    logits = np.array([[1.0, 0.25], [0.0, 2.0]], np.float32)
    found = Predictions(
        np.arange(2), logits.argmax(1), logits.argmax(1), logits, margins=margins(logits) if known else None
    )
    write_predictions(found, scores, "validation")
    read = read_predictions(scores, "validation")
    assert (read.margins.tolist() if known else read.margins) == ([0.75, 2.0] if known else None)
    assert read.logits.shape == (2, 2)
