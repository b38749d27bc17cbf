"""Training: what is learned, what is resumed, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from qexp.config import Machine
from qexp.errors import TrainingError
from qexp.lit.classification import Classifier, Optimization, task_loss
from qexp.lit.training import CHECKPOINT, Steps, fit
from qexp.runtime import Runtime
from tests.conftest import tiny_config

STEPS = 12


def _batch(rows: np.ndarray) -> dict[str, torch.Tensor]:
    ids = torch.from_numpy(rows[:, None] % 8 + np.zeros(6, dtype=int) + 5)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
        "labels": torch.from_numpy(rows % 2),
    }


def _steps(count: int = STEPS) -> Steps:
    generator = np.random.default_rng(0)
    return Steps([generator.integers(0, 100, 8) for _ in range(count)], _batch)


def _module(rate: float = 1e-3) -> Classifier:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(tiny_config("bert", 64, num_labels=2))
    return Classifier(model, Optimization(rate, weight_decay=0.01, warmup=0.1, steps=STEPS, seed=3))


def _runtime(tmp_path: Path, seconds: float = 1e9) -> Runtime:
    return Runtime.at(tmp_path, Machine(checkpoint_seconds=seconds, progress=False, threads=1))


def _weights(module: Classifier) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.model.parameters()])


class _Cut(Exception):
    pass


def test_a_resumed_training_is_bit_identical_to_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = _module()
    journal = fit(whole, _steps(), tmp_path, "whole", _runtime(tmp_path))

    def cut_off(rows: np.ndarray) -> dict[str, torch.Tensor]:
        if steps.taken > 8:
            raise _Cut
        return _batch(rows)

    steps = _steps()
    steps.collate = cut_off
    with pytest.raises(_Cut):
        fit(_module(), steps, tmp_path, "cut", _runtime(tmp_path, seconds=0))
    assert (tmp_path / CHECKPOINT).exists()

    resumed = _module(rate=0.5)  # whatever is set up anew must be overwritten by the checkpoint
    resumed.optimization = whole.optimization
    rest = fit(resumed, _steps(), tmp_path, "rest", _runtime(tmp_path))
    assert rest["resumed_at"] == 8
    assert rest["loss"] == journal["loss"]
    assert len(rest["loss"]) == STEPS
    assert torch.equal(_weights(whole), _weights(resumed))


def test_a_damaged_checkpoint_is_dropped_with_a_word(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"PK\x03\x04 cut off")
    runtime = _runtime(tmp_path)
    journal = fit(_module(), _steps(), tmp_path, "again", runtime)
    assert journal["resumed_at"] == 0
    assert "damaged" in runtime.screen.warnings[0]


def test_training_learns(tmp_path: Path) -> None:
    module = _module()
    module.optimization = Optimization(5e-3, 0.0, 0.1, 60, 0)
    losses = fit(module, _steps(60), tmp_path, "learn", _runtime(tmp_path))["loss"]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    module = _module()
    with torch.no_grad():
        module.model.classifier.bias.fill_(torch.nan)
    with pytest.raises(TrainingError, match="loss is nan at step 1 of 12; lower the learning rate"):
        fit(module, _steps(), tmp_path, "fine-tune", _runtime(tmp_path))


def test_dropout_is_at_work_in_training_and_not_after_it(tmp_path: Path) -> None:
    module = _module()
    module.model.eval()
    seen: list[bool] = []
    module.model.bert.register_forward_hook(lambda bert, *_: seen.append(bert.embeddings.dropout.training))
    fit(module, _steps(2), tmp_path, "modes", _runtime(tmp_path))
    assert seen == [True, True]
    assert not module.model.bert.embeddings.dropout.training


def test_schedule_rises_then_falls_to_zero() -> None:
    plan = Optimization(1.0, 0.0, warmup=0.2, steps=50, seed=0)
    factors = [plan.factor(step) for step in range(51)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[9] == max(factors) == 1.0
    assert factors[50] == 0.0
    assert all(np.diff(factors[10:]) < 0)


def test_loss_is_cross_entropy_or_squared_error() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    expected = -torch.log_softmax(logits, -1)[[0, 1], [0, 1]].mean()
    assert task_loss(logits, torch.tensor([0, 1])) == pytest.approx(float(expected))
    assert task_loss(torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 1.0])) == pytest.approx(2.5)
