"""The real encoder, on generated and on real rows: what the other tests do small, once at full size."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from qexp.config import Model
from qexp.data.checkpoints import locate
from qexp.errors import ModelError
from qexp.jobs import OK, Job
from tests.conftest import compose

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def _weights_at_hand() -> None:
    try:
        locate(Model(name="sentence-transformers/all-MiniLM-L6-v2"))
    except ModelError as error:
        pytest.skip(f"the packaged weights are out of reach: {error}")


def _record(*words: str) -> dict[str, Any]:
    code = Job(compose(*words, "machine.progress=false")).run()
    (file,) = (Path(os.environ["QEXP_OUTPUTS"]) / "records").glob("*.json")
    record: dict[str, Any] = json.loads(file.read_text())
    assert code == OK, record["error"] or record["parity"]
    return record


def test_the_demo_in_a_minute() -> None:
    record = _record("task=mrpc", "quant=w8a8", "data=sample", "budget=smoke")
    assert record["model"]["name"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert record["bytes"]["int8"] < 0.7 * record["bytes"]["fp32"]
    assert record["sites"]["sites"]["linear.weight"] == 6 * 6 + 2


def test_sixty_steps_on_real_pairs_learn_and_survive_quantization() -> None:
    if not os.environ.get("QEXP_DATA"):
        pytest.skip("QEXP_DATA names no folder with real data sets")
    record = _record("task=stsb", "data=local", "deploy=onnx", "budget.train_steps=60", "finetune.epochs=1")
    scores = record["scores"]
    assert record["data"]["rows"] == {"train": 5749, "validation": 1500}
    assert scores["fp32"]["pearson"] > 60
    assert abs(scores["ptq"]["pearson"] - scores["fp32"]["pearson"]) < 2
    assert scores["qat"]["pearson"] > scores["fp32"]["pearson"] - 1
