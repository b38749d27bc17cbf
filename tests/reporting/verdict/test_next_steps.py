"""Every next step is a command that is there, with changes that make a valid experiment."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

import pytest

from qexp.cli.again import changed
from qexp.cli.main import COMMANDS
from qexp.cli.overrides import CommandLine
from qexp.records.record import Record
from qexp.reporting.verdict.next_steps import next_steps
from qexp.reporting.verdict.verdict import verdicts
from tests.conftest import experiment as composed
from tests.support.record_factory import experiment, failed, interrupted, parity, record
from tests.support.verdict_records import MIB, engine, judged

CONSTANT = {"f1": "predicts 'yes' for all 408 rows"}
SAMPLE: dict[str, Any] = {"source": "sample", "sections": {"budget": {"name": "smoke", "train_steps": 5}}}
NO_FILE: dict[str, Any] = {"engines": {}, "sections": {"deploy": {"kind": "none"}}}
TABLES = {"quantizers": 9, "sites": {"linear.weight": 6, "embedding.weight": 3}}
COST = {"tokens": 128, "macs": 1, "bops": 1, "bytes": 55 * MIB}
LARGE_TABLES: dict[str, Any] = {
    "sections": {"placement": {"name": "gemm", "sites": ["linear.weight"]}},
    "sites": {"quantizers": 6, "sites": {"linear.weight": 6}, "cost": COST},
    "bytes": {"fp32": 88 * MIB, "int8": 55 * MIB},
}


def broken(runtime: str, **of_int8: Any) -> dict[str, Any]:
    """Engines of a runtime whose integers are not there, or fail."""
    return {"engines": {f"{runtime}/fp32": engine(12.0), f"{runtime}/int8": of_int8}}


RUNS: dict[str, Record] = {
    "deployable": judged(-0.1), "tables": judged(-0.1, **LARGE_TABLES),
    "fewer bits": judged(-0.1, quant="w4a8"),
    "sample": judged(-0.1, **SAMPLE), "loss": judged(-3.0), "loss of few bits": judged(-3.0, quant="w4a8"),
    "loss of tables": replace(judged(-3.0, quant="w4a8"), sites=TABLES),
    "loss of ranges by mse": judged(-3.0, sections={"calibrator": {"kind": "mse"}}),
    "loss of QAT": judged(-3.0, method="qat"),
    "simulated": judged(quant="w4a4"), "not exported": judged(-0.1, **NO_FILE),
    "PTQ of QAT": judged(-3.0, ptq_points=-0.1, method="qat"),
    "gate failed": judged(**broken("onnxruntime", gate=parity(False))),
    "no engine": judged(**broken("onnxruntime", problems={"engine": "install it"})),
    "no other engine": judged(**broken("openvino", problems={"engine": "install it"})),
    "collapsed": judged(0.0, caveats={"ptq": CONSTANT}),
    "collapsed QAT": judged(0.0, method="qat", caveats={"ptq": CONSTANT, "qat": CONSTANT}),
    "FP32 at chance": judged(0.0, caveats={"fp32": CONSTANT}),
    "checkpoint at chance": judged(0.0, caveats={"fp32": CONSTANT}, sections={"finetune": {"kind": "none"}}),
    "floats": record(experiment(quant="fp32")), "failed": failed(experiment(), scores={}),
    "interrupted": interrupted(experiment(), scores={}),
}  # fmt: skip


def typed(run: Record) -> list[str]:
    """What the user typed for a run, with fields that changes have to take the place of."""
    bits = run.experiment["quant"]
    quant = f"w{bits['weight_bits']}a{bits['activation_bits']}"
    words = [f"quant={'fp32' if quant == 'w32a32' else quant}", f"seed={run.experiment['seed']}"]
    trains = run.experiment["finetune"]["kind"] == "full"
    words += ["data=sample", "data.train_rows=100"] if run.data and run.data["source"] == "sample" else []
    words += ["budget=smoke"] if run.experiment["budget"]["name"] == "smoke" else []
    method = run.experiment["method"]["kind"]
    words += {"qat": ["method=qat", "method.epochs=1"], "ptq": ["method=ptq"]}.get(method, [])
    words += ["placement=gemm_tables"] if run.sites == TABLES else []
    words += ["deploy=openvino"] if run.experiment["deploy"].get("runtimes") == ["openvino"] else []
    words += ["deploy=none"] if run.experiment["deploy"]["kind"] == "none" else []
    return ["task=mrpc", *([] if trains else ["finetune=none"]), *words]


@pytest.mark.parametrize("name", RUNS)
def test_every_step_is_a_whole_command_that_is_there(name: str) -> None:
    run = RUNS[name]
    (verdict,) = verdicts([run])
    steps = next_steps(verdict)
    assert steps and all(step.purpose for step in steps)
    for step in steps:
        program, command, key, *words = shlex.split(step.command)
        assert (program, key) == ("qexp", run.key[:8]) and command in COMMANDS
        assert "…" not in step.command
        if command == "again":
            line = CommandLine(changed(typed(run), words))
            line.check()
            again = composed(*line.all)
            capitals = {each for word in words for each in re.findall(r"\b[A-Z]{4,}\b", word)}
            assert not words or capitals or again != composed(*typed(run)), "a change that changes nothing"


def test_a_step_repeats_a_run_that_finished_where_one_failed() -> None:
    floats = record(experiment(quant="fp32"))
    (verdict,) = verdicts([failed(experiment(quant="fp32", seed=2), scores={}), floats])
    assert [step.command.split()[2] for step in next_steps(verdict)] == [floats.key[:8]]


def test_a_checkpoint_without_labels_is_fine_tuned() -> None:
    run = judged(0.0, caveats={"fp32": CONSTANT}, sections={"finetune": {"kind": "none"}})
    task = {**run.experiment["task"], "kind": "regression", "labels": []}
    (verdict,) = verdicts([replace(run, experiment={**run.experiment, "task": task})])
    assert [step.command for step in next_steps(verdict)] == [f"qexp again {run.key[:8]} finetune=full"]


def test_labels_are_quoted_for_the_shell_and_for_hydra() -> None:
    run = judged(0.0, caveats={"fp32": CONSTANT}, sections={"finetune": {"kind": "none"}})
    task = {**run.experiment["task"], "labels": ["it's so", "2, or more"]}
    (verdict,) = verdicts([replace(run, experiment={**run.experiment, "task": task})])
    (step,) = next_steps(verdict)
    assert shlex.split(step.command)[3] == "task.labels=['2, or more','it\\'s so']"
