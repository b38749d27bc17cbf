"""The parity gate: what passes, what does not, and what it says in numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qexp.artifacts import Scores
from qexp.config import TextTask
from qexp.lit.family import Predictions
from qexp.lit.scoring import write_predictions
from qexp.stages.parity import compare
from tests.conftest import experiment

MRPC, STSB, MNLI = (experiment(f"task={name}").task for name in ("mrpc", "stsb", "mnli"))


def _scores(
    folder: Path, task: TextTask, logits: np.ndarray[Any, Any], metrics: dict[str, float | None]
) -> Scores:
    folder.mkdir()
    scores = Scores(folder, "key")
    predictions = logits[:, 0] if task.kind == "regression" else logits.argmax(1)
    found = Predictions(np.arange(len(logits)), predictions, predictions, logits.astype(np.float32))
    for name in task.evaluation:
        write_predictions(found, scores, name)
    (folder / "facts.json").write_text(json.dumps({"metrics": metrics}))
    return scores


def _compared(
    tmp_path: Path,
    task: TextTask,
    ours: np.ndarray[Any, Any],
    theirs: np.ndarray[Any, Any],
    *metrics: float | None,
) -> dict[str, Any]:
    first, second = ({task.primary: value} for value in metrics)
    graph = _scores(tmp_path / "graph", task, ours, first)
    return compare(graph, _scores(tmp_path / "torch", task, theirs, second), first, task)


def _logits(flipped: int = 0, rows: int = 1000) -> np.ndarray[Any, Any]:
    logits = np.tile([1.0, 0.0], (rows, 1))
    logits[:flipped] = [0.0, 1.0]
    return logits


@pytest.mark.parametrize(("flipped", "passed"), [(0, True), (5, True), (6, False)])
def test_half_a_percent_of_predictions_may_differ(flipped: int, passed: bool, tmp_path: Path) -> None:
    found = _compared(tmp_path, MRPC, _logits(flipped), _logits(), 90.0, 90.1)
    assert found["passed"] is passed
    assert found["agreement"] == pytest.approx(100 - flipped / 10)
    assert found["max_logit_difference"] == (1.0 if flipped else 0.0)
    assert found["rows"] == 1000


@pytest.mark.parametrize(("metric", "passed"), [(90.19, True), (90.21, False), (None, False)])
def test_a_metric_may_differ_by_a_fifth_of_a_point(
    metric: float | None, passed: bool, tmp_path: Path
) -> None:
    assert _compared(tmp_path, MRPC, _logits(), _logits(), metric, 90.0)["passed"] is passed


@pytest.mark.parametrize(("flipped", "passed"), [(1, True), (2, False)])
def test_in_a_small_set_one_row_may_differ(flipped: int, passed: bool, tmp_path: Path) -> None:
    """MRPC's 408 rows: 0.245 points each; two are still 99.5 % of predictions."""
    metric = 80.0 + flipped * 100 / 408
    found = _compared(tmp_path, MRPC, _logits(flipped, 408), _logits(rows=408), metric, 80.0)
    assert found["agreement"] > 99.5
    assert found["passed"] is passed


def test_numbers_agree_within_a_share_of_the_label_range(tmp_path: Path) -> None:
    theirs = np.zeros((1000, 1))
    ours = theirs.copy()
    ours[:6], ours[6:500] = 0.26, 0.24
    found = _compared(tmp_path, STSB, ours, theirs, 80.0, 80.0)
    assert found["agreement"] == pytest.approx(99.4)
    assert not found["passed"]


def test_all_splits_count(tmp_path: Path) -> None:
    found = _compared(tmp_path, MNLI, _logits(), _logits(), 50.0, 50.0)
    assert found["rows"] == 2000


def test_what_is_no_number_never_passes(tmp_path: Path) -> None:
    broken = _logits()
    broken[0, 0] = np.nan
    found = _compared(tmp_path, MRPC, broken, _logits(), None, None)
    assert not found["passed"]
    assert found["max_logit_difference"] is None
