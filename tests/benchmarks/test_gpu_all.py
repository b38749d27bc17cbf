"""The command for a lent GPU: each step on a CPU with the tiny shape, limits, and going on after a cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_steps
from benchmarks.gpu_all import STEPS, Step, ended, run_all, run_step

WELL = Step("well", ("json.tool", "--help"), 60)
WRONG = Step("wrong", ("json.tool", "no/such/file"), 60)
TINY = [
    "--device",
    "cpu",
    "--length",
    "8",
    "--lengths",
    "8",
    "--model",
    "tiny",
    "--batch",
    "2",
    "--rounds",
    "1",
    "--mib",
    "1",
]


@pytest.mark.parametrize(
    ("step", "rows"),
    [
        ("kernels", ["per tensor, 1 MiB, both ways, learned", "per channel, 1 MiB, forward, frozen"]),
        ("step", ["readings, qexp frozen", "readings, qexp learned", "readings, without quantizers"]),
        ("calibration", ["readings, calibration", "readings, inference"]),
        ("memory", ["left_out"]),
    ],
)
def test_a_step_measures_what_it_says(
    step: str, rows: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_steps.main([step, *TINY, "--json", str(tmp_path / "x.json")])
    shown = capsys.readouterr().out
    for row in rows:
        assert f"| {row} |" in shown
    assert json.loads((tmp_path / "x.json").read_text())["settings"]["step"] == step


def test_mixed_precision_is_asked_for(tmp_path: Path) -> None:
    gpu_steps.main(["step", *TINY, "--precision", "bf16", "--json", str(tmp_path / "x.json")])
    assert json.loads((tmp_path / "x.json").read_text())["settings"]["precision"] == "bf16"


def test_a_second_call_runs_what_has_no_answer_yet(tmp_path: Path) -> None:
    first = run_all(tmp_path, 1, steps=(WELL, WRONG))
    assert ended(WELL, first["well"]) and not ended(WRONG, first["wrong"])
    kept = (tmp_path / "well.json").read_bytes()
    fixed = Step("wrong", WELL.words, 60)
    second = run_all(tmp_path, 1, steps=(WELL, fixed))
    assert (tmp_path / "well.json").read_bytes() == kept
    assert ended(fixed, second["wrong"])
    assert "## wrong: " in (tmp_path / "report.md").read_text()
    assert set(json.loads((tmp_path / "report.json").read_text())["steps"]) == {"well", "wrong"}


def test_without_time_nothing_is_begun(tmp_path: Path) -> None:
    assert run_all(tmp_path, 0, steps=(WELL,)) == {}
    assert "## well: not yet" in (tmp_path / "report.md").read_text()


def test_a_step_that_takes_too_long_is_cut_off(tmp_path: Path) -> None:
    found = run_step(WELL, tmp_path, 0.001, tiny=False)
    assert found["code"] is None and "cut off" in found["text"]
    assert not ended(WELL, found)


def test_a_refusal_is_an_answer_where_one_is_asked_for(tmp_path: Path) -> None:
    found = {"code": 2}
    asked = [step.name for step in STEPS if ended(step, found)]
    assert asked == ["two processes"]


def test_it_is_reached_from_the_benchmark_of_gpus(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        gpu.main(["--all", "--folder", str(tmp_path), "--minutes", "0"])
    assert left.value.code == 1  # nothing has an answer yet
    assert (tmp_path / "report.md").is_file()
