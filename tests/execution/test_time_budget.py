"""Tests of the choice of rows and steps for a number of minutes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexp.config import Experiment
from qexp.errors import INVALID, OK
from qexp.execution import time_budget
from qexp.execution.dry_run import RequiredStage
from qexp.execution.job import Job
from qexp.execution.plan import Plan
from qexp.execution.stage_times import Rates, StageRule
from qexp.execution.time_budget import choose
from tests.conftest import compose, experiment
from tests.support.jobs import run

STAGES = [
    RequiredStage(stage, stage, there=False, features=(stage,), estimate=None, part=part)
    for stage, part in (
        ("1-tokens", ""), ("2-fp32", ""), ("6-scores", "FP32"), ("3-statistics", ""), ("4-ranges", ""),
        ("6-scores", "PTQ"), ("5-qat", ""), ("6-scores", "QAT"),
    )
]  # fmt: skip
ROWS = {"train": 3668, "validation": 408}


def _rule(*words: str, rate: float = 0.02) -> StageRule:
    made = experiment("task=mrpc", "quant=w8a8", "method=qat", *words)
    return StageRule(made, ROWS, Rates(train_row=rate, evaluation_row=rate / 4))


@given(st.floats(1, 60), st.floats(0.001, 0.05))
def test_a_choice_ends_in_time_unless_it_is_the_least(minutes: float, rate: float) -> None:
    rule = _rule(rate=rate)
    choice = choose(rule, STAGES, 60 * minutes)
    budget = choice.experiment.budget
    least = (budget.train_steps, budget.evaluation_rows) == (4, 50)
    assert choice.seconds <= 60 * minutes or least
    assert bool(choice.left_out) is (budget != rule.experiment.budget)


def test_steps_of_batches_of_tokens_are_estimated_from_their_length() -> None:
    words = ("finetune.batch_tokens=4096", "finetune.epochs=2", "finetune.holdout=668")
    rule = replace(_rule(*words), row_tokens=41.0)
    assert rule.finetuning == (2 * math.ceil(3000 / (4096 / 41)), pytest.approx(4096 / 41))
    assert rule.continued[0] == 2 * math.ceil(3668 / (4096 / 41))
    limited = replace(_rule(*words, "finetune.max_steps=7", "method.batch_size=16"), row_tokens=41.0)
    assert (limited.finetuning[0], limited.continued[1]) == (7, 16)


def test_more_minutes_are_used() -> None:
    steps = [choose(_rule(), STAGES, 60 * minutes).experiment.budget.train_steps for minutes in (2, 4, 8)]
    assert steps == sorted(steps)  # type: ignore[type-var]
    assert steps[2] > 2 * steps[0]  # type: ignore[operator]
    assert choose(_rule(), STAGES, 1e6).experiment.budget.train_steps is None


def test_numbers_are_round_and_limits_of_the_user_stay() -> None:
    budget = choose(_rule("budget.evaluation_rows=60"), STAGES, 300).experiment.budget
    assert budget.evaluation_rows is not None and budget.evaluation_rows <= 60
    assert budget.train_steps is not None
    assert budget.train_steps < 100 or budget.train_steps % 10 == 0


def test_what_was_left_out_is_said() -> None:
    said = choose(_rule(), STAGES, 120).describe(2)
    assert "of 460 steps of fine-tuning" in said  # 4 epochs of 115 batches
    assert "rows of evaluation" in said
    assert "the least there is" in choose(_rule(rate=1.0), STAGES, 60).describe(1)
    assert "with all rows and steps" in choose(_rule(), STAGES, 1e6).describe(1e6 / 60)


def test_minutes_are_no_part_of_a_run_and_its_numbers_are() -> None:
    plain = experiment("task=mrpc")
    assert plain.model_dump(mode="json")["budget"].keys() == plain.identity["budget"].keys()
    timed = Experiment.model_validate(compose("task=mrpc", "budget.minutes=10"))
    assert timed.identity == plain.identity
    assert experiment("task=mrpc", "budget.train_steps=5").identity != plain.identity


def test_a_run_again_makes_the_same_choice_and_measures_nothing(
    tiny_bert: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        "task=mrpc", "quant=w8a8", "method=ptq", "data=sample", "deploy=none", f"model.name={tiny_bert}",
        "machine.threads=1", "machine.progress=false", "budget.minutes=0.3", "data.train_rows=64",
    )  # fmt: skip
    before = Plan()
    before.add(compose(*words))
    assert "by rates that the run measures first" in before.titles[0]
    code, first = run(*words)
    assert code == OK, first["error"]
    after = Plan()
    after.add(compose(*words))
    assert "budget.minutes=0.3: about" in after.titles[0]
    assert all(stage.there for stage in after.jobs[0]), "the plan makes the choice of the run"
    assert any("budget.minutes=0.3: about" in each for each in first["warnings"])
    (probe,) = (outputs / "probes").glob("*.json")
    assert json.loads(probe.read_text())["train_row"] > 0
    monkeypatch.setattr("qexp.training.probe.measure_rates", lambda *_: pytest.fail("measured again"))
    code, second = run(*words)
    assert code == OK
    assert {stage["state"] for stage in second["stages"]} == {"cached"}
    assert second["key"] == first["key"]
    assert second["experiment"]["budget"] == first["experiment"]["budget"]


def test_a_damaged_probe_is_measured_again(tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text("{")
    assert time_budget._read(tmp_path / "probe.json") is None


def test_a_translation_has_no_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("task=translation", "model=transformer_tiny", "data=sample", "budget.minutes=1")
    assert Job(compose(*words)).run() == INVALID
    assert "set budget.train_steps" in " ".join(capsys.readouterr().err.split())
