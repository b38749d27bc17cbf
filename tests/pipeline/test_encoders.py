"""Whole runs of encoders of other architectures: a new head, PTQ, steps of QAT, both runtimes, the gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from qexp.execution.job import OK
from tests.support.jobs import QUICK, record_problem, run
from tests.support.other_encoders import ENCODERS, checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_goes_through_the_whole_line(name: str, tmp_path: Path) -> None:
    words = (
        *QUICK[:-1],
        "task=mrpc",
        "finetune.epochs=0.02",
        "budget.evaluation_rows=40",
        "method.epochs=0.02",
    )
    more = ("placement=qdqbert", "deploy=onnx", "deploy.runtimes=[onnxruntime,openvino]")
    code, record = run(*words, *more, "quant=w8a8", f"model.name={checkpoint(tmp_path / name, name)}")
    assert code == OK, record_problem()[:300]
    assert set(record["scores"]) == {"fp32", "ptq", "qat", "onnx"}
    assert {name: engine["gate"]["passed"] for name, engine in record["engines"].items()} == {
        "onnxruntime/int8": True,
        "openvino/int8": True,
    }


@pytest.mark.slow
def test_a_model_of_one_token_type_is_given_none(tmp_path: Path) -> None:
    words = (*QUICK[:-1], "task=mrpc", "finetune.epochs=0.02", "budget.evaluation_rows=20", "method=ptq")
    folder = checkpoint(tmp_path / "xlmr", "XLMRoberta")
    code, record = run(*words, "deploy=onnx", "quant=w8a8", f"model.name={folder}")
    assert code == OK, record_problem()[:300]
    assert record["parity"]["passed"]
