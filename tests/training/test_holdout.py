"""Tests of scores on held-out rows: those of a whole evaluation of the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from qexp.config import TextTask
from qexp.data.metrics.glue import score
from qexp.data.tokenization.pairs import IGNORED
from qexp.tasks import adapter_for
from qexp.tasks.module import Optimization, TaskModule
from qexp.training.holdout import Holdout
from tests.conftest import experiment, tiny_config
from tests.support.token_splits import text_split, word_split, written

ROWS = np.array([1, 4, 5, 11, 17, 30, 31])


def _module(task: Any, auto: Any, outputs: int) -> TaskModule:
    torch.manual_seed(0)
    model = auto.from_config(tiny_config("bert", 64, num_labels=outputs))
    return adapter_for(task).training_module(model, Optimization(1e-3, 0.0, 0.1, 1, 0)).train()


def test_classes_are_scored_by_the_first_metric(tmp_path: Path) -> None:
    task = experiment("task=mrpc").task
    assert isinstance(task, TextTask)
    split = text_split(40)
    holdout = Holdout(written(split, tmp_path), task, ROWS)
    module = _module(task, AutoModelForSequenceClassification, 2)
    found = holdout.score(module, tmp_path)
    assert module.training and module.model.training
    module.eval()
    batch = adapter_for(task).collate(split, ROWS, pad_id=0)
    predicted = module(batch).argmax(-1).numpy()
    assert found == score(("accuracy",), predicted, split.labels[ROWS])["accuracy"]
    assert (holdout.score_name, holdout.higher_is_better) == ("accuracy", True)
    assert holdout.score(module, tmp_path) == found, "rows are written once"
    with torch.no_grad():
        module.model.classifier.bias.fill_(torch.nan)
    assert holdout.score(module, tmp_path) is None


def test_tags_are_scored_by_spans(tmp_path: Path) -> None:
    labels = ["task.labels=[O,B-PER,I-PER]", "task.metrics=[token_accuracy]"]
    task = experiment("task=token_classification", "data.path=rows.csv", *labels).task
    split = word_split(40)
    holdout = Holdout(written(split, tmp_path), task, ROWS)
    module = _module(task, AutoModelForTokenClassification, 3)
    found = holdout.score(module, tmp_path)
    module.eval()
    batch = adapter_for(task).collate(split, ROWS, pad_id=0)
    right = (module(batch).argmax(-1) == batch["labels"])[batch["labels"] != IGNORED]
    assert found == pytest.approx(100 * float(right.float().mean()))
