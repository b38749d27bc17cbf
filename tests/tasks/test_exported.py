"""Tests of exported files for each kind of task, and of evaluation through engines built from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from qexp.deploy.engine import EngineSpec
from qexp.deploy.runtimes.onnxruntime.engine import OnnxRuntimeEngine
from qexp.tasks.exported import export, exported_run
from tests.conftest import experiment
from tests.support.tiny_encoders import EXAMPLE, batch, encoder, torch_logits


def test_a_classifier_is_one_file_and_its_run_gives_logits(tmp_path: Path) -> None:
    task, model = experiment("task=mrpc").task, encoder("bert")
    assert export(model, task, tmp_path, EXAMPLE) == ("model.onnx",)
    run = exported_run(task, tmp_path, lambda path: OnnxRuntimeEngine(EngineSpec(path, "fp32", 1)))
    values = batch(tuple(EXAMPLE), 3, 9)
    given = {name: torch.from_numpy(array) for name, array in values.items()}
    result = run({**given, "labels": torch.zeros(3)})
    np.testing.assert_allclose(result.numpy(), torch_logits(model, values), rtol=1e-4, atol=1e-5)
