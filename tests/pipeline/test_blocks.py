"""Whole runs of a tiny model with weights in blocks, down to engines that the gate lets pass."""

from __future__ import annotations

from pathlib import Path

from qexp.execution.job import OK
from tests.support.jobs import QUICK, record_problem, run

WORDS = (
    "task=mrpc", "quant=w4a8", "scheme=per_group", "scheme.weight.group_size=16", *QUICK[:-1],
    "finetune.epochs=0.02", "budget.evaluation_rows=20", "calibration.samples=16", "deploy=cpu",
    "deploy.runtimes=[onnxruntime,openvino]", "deploy.precisions=[int8]", "deploy.lengths=[16]",
    "deploy.batch_sizes=[2]", "deploy.runs=3",
)  # fmt: skip


def test_ptq_and_qat_reach_both_engines(tiny_bert: Path) -> None:
    code, record = run(*WORDS, "method=qat", f"model.name={tiny_bert}")
    assert code == OK, record_problem()
    assert {"ptq", "qat"} <= set(record["scores"])
    for name in ("onnxruntime/int8", "openvino/int8"):
        engine = record["engines"][name]
        assert engine["gate"]["passed"], (name, engine["gate"])
        assert engine["audit"]["integer_share"] > 50


def test_a_width_that_the_size_does_not_divide_stops_the_run(tiny_bert: Path) -> None:
    words = (*WORDS, "scheme.weight.group_size=64", "method=ptq", f"model.name={tiny_bert}")
    code, _ = run(*words)
    assert code != OK
    assert "has 32 inputs, which it does not divide" in record_problem()
