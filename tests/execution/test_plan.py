"""Plans of dry runs, compared with the runs that follow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qexp.errors import INVALID, OK
from qexp.execution.dry_run import RequiredStage
from qexp.execution.plan import DryRunLauncher, Plan
from qexp.execution.sweep_log import SweepLog
from qexp.records.record import records_folder, write
from tests.conftest import compose
from tests.support.jobs import QUICK, run
from tests.support.record_factory import experiment, record

SWEEP = (["quant=w8a8", "method=ptq"], ["quant=w4a8", "method=ptq"], ["quant=fp32", "seed=2"])
Counts = dict[str, tuple[int, int, int, int]]
"""Stages that are asked for, different, cached and to build, by name."""


@pytest.fixture
def words(tiny_bert: Path, tmp_path: Path) -> list[str]:
    """Words of a quick run on rows of a local folder."""
    import pyarrow.parquet as pq

    from qexp.data.synthetic import sample

    (tmp_path / "data" / "mrpc").mkdir(parents=True)
    for split, table in sample("mrpc").items():
        pq.write_table(table, tmp_path / "data" / "mrpc" / f"{split}.parquet")
    return [
        "task=mrpc", f"model.name={tiny_bert}", *QUICK[1:-1], "data=local", f"data.root={tmp_path / 'data'}",
        "finetune.epochs=0.02", "budget.evaluation_rows=20", "calibration.samples=16",
    ]  # fmt: skip


def _planned(words: list[str], jobs: Sequence[list[str]] = SWEEP) -> Plan:
    plan = Plan()
    DryRunLauncher(plan, lambda own: compose(*words, *own)).launch(jobs, 0)
    return plan


def _rows(plan: Plan, capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    capsys.readouterr()
    plan.show()
    for line in capsys.readouterr().out.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if cells[0][:1].isdigit() and len(cells) > 1:
            yield cells


def _counts(plan: Plan, capsys: pytest.CaptureFixture[str]) -> Counts:
    return {stage: tuple(map(int, counts)) for stage, *counts, _ in _rows(plan, capsys)}  # type: ignore[misc]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*")) if folder.exists() else []


@pytest.mark.parametrize(
    "jobs",
    [
        [[*job, "deploy=none"] for job in SWEEP],
        pytest.param(
            [
                [
                    f"quant={bits}",
                    "method=qat",
                    "method.epochs=0.05",
                    "deploy=onnxruntime",
                    "deploy.lengths=[16]",
                ]
                for bits in ("w8a8", "w4a8")
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["ptq", "qat"],
)
def test_a_plan_counts_what_the_sweep_then_builds(
    jobs: list[list[str]], words: list[str], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _counts(_planned(words, jobs), capsys)
    assert _files(outputs) == []
    states: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        code, done = run(*words, *job)
        assert code == OK, done["error"]
        states.update((stage["stage"], stage["state"]) for stage in done["stages"])
    for stage, (asked, different, cached, missing) in before.items():
        assert missing == different == states[stage, "built"], stage
        assert (cached, asked - different) == (0, states[stage, "cached"]), stage
    assert set(before) == {stage for stage, _ in states}
    there = _files(outputs)
    after = _counts(_planned(words, jobs), capsys)
    assert after == {stage: (*of[:2], of[1], 0) for stage, of in before.items()}
    assert _files(outputs) == there


def test_a_plan_of_half_done_work_counts_what_is_missing(
    words: list[str], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*words, "quant=w8a8", "method=ptq", "deploy=none")
    counts = _counts(_planned(words, (["quant=w4a8", "method=ptq", "deploy=none"],)), capsys)
    assert counts == {
        "1-tokens": (1, 1, 1, 0),
        "2-fp32": (1, 1, 1, 0),
        "3-statistics": (1, 1, 1, 0),
        "4-ranges": (1, 1, 0, 1),
        "6-scores": (2, 2, 1, 1),
    }


@pytest.mark.parametrize("task", ["squad", "stsb"])
def test_every_kind_of_task_can_be_planned(
    task: str, tiny_bert: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"task={task}", "data=sample", f"model.name={tiny_bert}"]
    plan = Plan()
    plan.add(compose(*words))
    assert plan.complete, plan.problems
    assert "1-tokens" in _counts(plan, capsys)
    assert _files(outputs) == []


def test_translation_from_nothing_can_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan()
    plan.add(compose("task=translation", "model=transformer_tiny", "data=sample"))
    assert plan.complete, plan.problems
    assert "2-fp32" in _counts(plan, capsys)


def _built(seconds: float, stage: str = "2-fp32", **sections: Any) -> Any:
    stages = [{"stage": stage, "key": "k", "state": "built", "seconds": seconds}]
    return record(experiment(**sections), stages=stages, key=f"{stage}{seconds}")


def _expected(words: list[str], stage: str, capsys: pytest.CaptureFixture[str]) -> str:
    (time,) = (row[-1] for row in _rows(_planned(words, (["quant=fp32"],)), capsys) if row[0] == stage)
    return time


def test_without_any_record_a_rule_tells_the_time(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _expected(words, "2-fp32", capsys).startswith("about ")


def test_without_a_record_or_a_rule_the_time_is_unknown() -> None:
    plan = Plan([[RequiredStage("2-fp32", "k", False, ("2-fp32",), None)]], count=1)
    assert "1 stage to build, time unknown: none has run here yet." in plan.text({})
    plan.jobs.append([RequiredStage("1-tokens", "l", False, ("1-tokens",), None)])
    assert "2 stages to build, time unknown" in plan.text({})
    assert "2 stages to build, one after another at least 8 s, and 1 of unknown time" in plan.text(
        {("1-tokens",): 8.0}
    )


def test_the_rule_grows_with_the_work(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from qexp.config import Experiment
    from qexp.execution.stage_times import Rates, StageRule

    def seconds(*more: str) -> float:
        experiment = Experiment.model_validate(compose(*words, *more))
        rule = StageRule(experiment, {"train": 1000, "validation": 100}, Rates(0.01, 0.002))
        return sum(rule.seconds(stage, "FP32") or 0 for stage in ("2-fp32", "5-qat", "6-scores"))

    base = ("budget=full", "finetune.epochs=1", "method=qat", "method.epochs=1", "finetune.batch_size=10")
    assert seconds(*base) == pytest.approx(3 + 10 + 3 + 11 + 1 + 20 * 0.002)  # budget.evaluation_rows=20
    assert seconds(*base, "budget.train_steps=10") == pytest.approx(3 + 1 + 3 + 1.1 + 1 + 20 * 0.002)


def test_time_is_that_of_the_most_similar_stages_that_were_built(
    words: list[str], outputs: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The median of those of the same task, model and budget; the seconds of a look-up tell nothing."""
    folder = records_folder(outputs)
    write(_built(7200.0, model="another"), folder)
    assert _expected(words, "2-fp32", capsys).startswith("about ")
    own = {"model": str(tiny_bert), "budget": {"name": "smoke"}}
    for seconds in (10.0, 65.0, 70.0):
        write(_built(seconds, **own), folder)
    cached = _built(9000.0, **own)
    write(replace(cached, stages=[{**cached.stages[0], "state": "cached"}]), folder)
    assert _expected(words, "2-fp32", capsys) == "1 min 5 s"


def test_a_rerun_keeps_the_times_of_the_stages_and_a_plan_finds_them(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    own = ("quant=w8a8", "method=ptq", "deploy=none")
    first, second = (run(*words, *own)[1]["stages"] for _ in range(2))
    assert {stage["state"] for stage in second} == {"cached"}
    for stage, again in zip(first, second, strict=True):
        assert again["seconds"] == pytest.approx(stage["seconds"], abs=1.0), stage
    assert sum(stage["seconds"] for stage in second) > 0.5 * sum(stage["seconds"] for stage in first)
    plan = _planned(words, (["quant=w4a8", "seed=2", *own[1:]],))
    times = {stage: time for stage, *_, time in _rows(plan, capsys)}
    assert not times["2-fp32"].startswith("about")


def test_a_record_that_cannot_be_read_does_not_stop_a_plan(
    words: list[str], outputs: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"model": str(tiny_bert), "budget": {"name": "smoke"}}
    write(_built(30.0, **own), records_folder(outputs))
    (records_folder(outputs) / "foreign.json").write_text("{")
    assert _expected(words, "2-fp32", capsys) == "30 s"


def test_jobs_that_cannot_run_are_named_with_what_is_wrong(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = _planned(words, (["quant=w8a8"], ["quant=fp32", "method=qat"], ["model.name=/nowhere"]))
    assert not plan.complete
    assert plan.count == 3
    plan.show()
    said = capsys.readouterr().out
    assert "plan of 3 jobs" in said
    assert "cannot run: job 1: method=qat" in said
    assert "cannot run: job 2: model.name=/nowhere: no such folder" in said


def _command(module: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *words], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("way", ["--dry-run", "plan"])
def test_a_sweep_is_planned_from_the_command_line_and_nothing_is_written(
    way: str, words: list[str], outputs: Path, tmp_path: Path
) -> None:
    asked = ["-m", *words, "quant=w8a8,w4a8", "seed=1,2"]
    before = set(tmp_path.rglob("*"))
    arguments = [*asked, way] if way.startswith("-") else [way, *asked]
    done = _command("qexp", *arguments, cwd=tmp_path)
    assert done.returncode == OK, done.stderr
    assert "plan of 4 jobs" in done.stdout
    assert set(tmp_path.rglob("*")) == before


def test_a_plan_with_a_job_that_cannot_run_refuses_the_command(words: list[str], tmp_path: Path) -> None:
    done = _command("qexp", "plan", *words, "quant=fp32", "method=qat", cwd=tmp_path)
    assert done.returncode == INVALID
    assert "cannot run: job 0: method=qat" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_search_cannot_be_planned_and_says_why(words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="hydra-optuna-sweeper is not installed")
    done = _command("qexp", "plan", "-m", *words, "hydra/sweeper=optuna", "seed=1,2", cwd=tmp_path)
    assert done.returncode == INVALID
    assert "there is no plan" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()
    assert not SweepLog(Path(os.environ["QEXP_OUTPUTS"])).folder.exists()
