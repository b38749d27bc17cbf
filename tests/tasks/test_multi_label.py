"""Multi-label texts: loss, distance to a teacher, decisions, and their gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from qexp.config import MultiLabelTask
from qexp.data.metrics.label_sets import tuples
from qexp.tasks.base import Predictions
from qexp.tasks.comparison import GateComparison, splits_of
from qexp.tasks.gate import judge
from qexp.tasks.multi_label import LabelClassifier, MultiLabelAdapter

SPLIT = {"evaluation": {"validation": "validation"}, "name": "any", "text": ("a",)}


def task_of(**search: Any) -> MultiLabelTask:
    return MultiLabelTask(
        kind="multi_label", labels=("a", "b"), metrics=("f1_micro",), search=search, **SPLIT
    )


def predictions(logits: np.ndarray, adapter: MultiLabelAdapter) -> Predictions:
    distances = logits - adapter.cuts
    gold = tuples(np.arange(len(logits))[:, None] % np.array([2, 3]) == 0)
    rows = np.arange(len(logits))
    return Predictions(
        rows, tuples(distances > 0), gold, logits.astype(np.float32), margins=np.abs(distances)
    )


def verdict(change: np.ndarray, adapter: MultiLabelAdapter) -> dict[str, Any]:
    """Of an engine that departs by ``change``, over a floor of rounding errors."""
    draws = np.random.default_rng(0)
    torch_logits = draws.normal(size=(400, 2))
    noise = draws.normal(scale=1e-5, size=(2, 400, 2))
    sides = [torch_logits + noise[0] + change, torch_logits, torch_logits + noise[1]]
    found = [[predictions(each, adapter)] for each in sides]
    return judge(GateComparison(adapter.task, splits_of(adapter.task, *found)))


def test_the_loss_is_a_mean_over_rows_and_labels() -> None:
    logits, labels = torch.tensor([[0.0, 2.0], [-1.0, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    probabilities = logits.sigmoid()
    expected = -(labels * probabilities.log() + (1 - labels) * (1 - probabilities).log()).mean()
    loss = LabelClassifier.loss(None, logits, {"labels": labels})  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected.item())


def test_distance_is_the_divergence_of_each_labels_probability() -> None:
    ours, theirs = torch.tensor([[0.3, -2.0]]), torch.tensor([[1.0, 0.5]])
    teacher = theirs.sigmoid()
    entropy = functional.binary_cross_entropy(teacher, teacher)
    expected = functional.binary_cross_entropy_with_logits(ours, teacher) - entropy
    found = MultiLabelAdapter(task_of()).distance(ours, theirs, {}, 1.0)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_threshold_is_one_of_probabilities() -> None:
    adapter = MultiLabelAdapter(task_of(thresholds=(0.2, 0.9)))
    below, above = adapter.cuts - 1e-3, adapter.cuts + 1e-3
    assert (1 / (1 + np.exp(-adapter.cuts))).tolist() == pytest.approx([0.2, 0.9])
    both = predictions(np.stack([below, above]), adapter)
    assert both.predictions.tolist() == [(), (0, 1)]


@pytest.mark.parametrize("thresholds", [(), (0.3, 0.8)])
def test_rounding_passes_and_a_shifted_label_does_not(thresholds: tuple[float, ...]) -> None:
    adapter = MultiLabelAdapter(task_of(thresholds=thresholds))
    sound = verdict(np.zeros(2), adapter)
    assert (sound["verdict"], sound["rows"], sound["agreement"]) == ("passed", 400, 100.0)
    assert sound["decisions"] == {"a": 100.0, "b": 100.0}
    shifted = verdict(np.array([0.0, 0.4]), adapter)
    assert not shifted["passed"]
    assert shifted["decisions"]["a"] == 100.0 > shifted["decisions"]["b"]
    assert shifted["agreement"] == shifted["decisions"]["b"]
    assert any("output 1" in reason for reason in shifted["reasons"])


def test_one_decision_far_from_its_threshold_fails_the_gate() -> None:
    adapter = MultiLabelAdapter(task_of())
    change = np.zeros((400, 2))
    draws = np.random.default_rng(0).normal(size=(400, 2))
    row = int(np.argmax(np.abs(draws[:, 1])))
    change[row, 1] = -2 * draws[row, 1]
    found = verdict(change, adapter)
    assert not found["passed"]
    assert any("up to" in reason for reason in found["reasons"])
