"""A real encoder on generated and on real rows: the full-size counterpart of the other tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from qexp.config import Model
from qexp.data.checkpoints import locate
from qexp.errors import ModelError
from qexp.execution.job import Job
from tests.conftest import compose

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def _weights_at_hand() -> None:
    try:
        locate(Model(name="sentence-transformers/all-MiniLM-L6-v2"))
    except ModelError as error:
        pytest.skip(f"the packaged weights are out of reach: {error}")


def _record(*words: str) -> dict[str, Any]:
    Job(compose(*words, "machine.progress=false")).run()
    (file,) = (Path(os.environ["QEXP_OUTPUTS"]) / "records").glob("*.json")
    record: dict[str, Any] = json.loads(file.read_text())
    assert record["status"] == "ok", record["error"]
    assert record["parity"]["agreement"] >= 99, "whatever the processor, nearly all rows agree"
    return record


def test_the_demo_in_a_minute() -> None:
    record = _record("task=mrpc", "quant=w8a8", "data=sample", "budget=smoke")
    assert record["model"]["name"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert record["bytes"]["int8"] < 0.7 * record["bytes"]["fp32"]
    assert record["sites"]["sites"]["linear.weight"] == 6 * 6 + 2


def test_sixty_steps_on_real_pairs_learn_and_come_out_of_the_graph_as_they_went_in(outputs: Path) -> None:
    if not os.environ.get("QEXP_DATA"):
        pytest.skip("QEXP_DATA names no folder with real data sets")
    few = ("budget.train_steps=60", "finetune.epochs=1", "budget.evaluation_rows=300")
    record = _record("task=stsb", "data=local", "deploy=onnx", *few)
    assert record["data"]["rows"] == {"train": 5749, "validation": 1500}
    assert set(record["scores"]) == {"fp32", "ptq", "qat", "onnx"}
    assert record["parity"]["rows"] == 300
    (facts,) = (outputs / "artifacts" / "2-fp32").glob("*/facts.json")
    losses = json.loads(facts.read_text())["loss"]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
