"""``qexp again``: what was typed, with changes; and the command of a Record in a real shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qexp.cli import again, run
from qexp.cli.again import changed
from qexp.errors import INVALID, OK
from qexp.records.record import write
from qexp.reporting.command import command_of
from qexp.reporting.run_view import RunView
from tests.conftest import experiment
from tests.support.record_factory import record

TYPED = ["--config-dir=/mine", "task=mrpc", "calibrator=percentile", "calibrator.percentile=99.9", "tags=[a]"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([], TYPED),
        (["quant=w4a8"], [*TYPED[:4], "quant=w4a8"]),
        (["calibrator=mse"], [*TYPED[:2], "calibrator=mse"]),
        (["calibrator.percentile=99"], [*TYPED[:3], "calibrator.percentile=99"]),
        (["~calibrator"], TYPED[:2]),
        (["~recipe", "seed=2"], [*TYPED[:4], "~recipe", "seed=2"]),
        (["tags=[b]", "note=x"], [*TYPED[:4], "tags=[b]", "note=x"]),
        (["-m", "seed=1,2"], [*TYPED[:4], "-m", "seed=1,2"]),
        (["--dry-run"], [*TYPED[:4], "--dry-run"]),
        (["++task=cola"], [*TYPED[:1], *TYPED[2:4], "++task=cola"]),
    ],
    ids=str,
)
def test_changes_take_the_place_of_what_was_typed(changes: list[str], words: list[str]) -> None:
    assert changed(TYPED, changes) == words


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of one's own with a task, and a space and a quote in its name."""
    folder = tmp_path / "it's mine"
    (folder / "task").mkdir(parents=True)
    task = "name: tickets\nkind: classification\ntext: [subject]\nlabel: queue\nlabels: [a, b]\n"
    task += "metrics: [accuracy]\nevaluation: {validation: validation}\n"
    (folder / "task" / "tickets.yaml").write_text(task)
    return folder


def leave(own: Path, outputs: Path, *, typed: bool = True) -> RunView:
    words = [f"--config-dir={own}", "task=tickets", "quant=w4a8", "finetune.epochs=2", "note=\"a, b: 'c'\""]
    tree = experiment("task=mrpc", "quant=w4a8", "finetune.epochs=2", "method=ptq").model_dump(mode="json")
    found = record(tree, overrides=words if typed else None)
    write(found, outputs / "records")
    return RunView(found)


def test_a_run_is_planned_again_with_its_folder_and_a_change(
    own: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(own, outputs)
    assert again.main(["last", "quant=w8a8", "--cfg", "job"]) == OK
    shown = capsys.readouterr()
    assert "name: tickets" in shown.out and "weight_bits: 8" in shown.out and "epochs: 2" in shown.out
    assert "note: null" in shown.out
    assert "quant=w8a8" in shown.err and str(own)[-4:] in shown.err


def test_without_typed_words_the_settings_of_the_record_are_repeated(
    own: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(own, outputs, typed=False)
    assert again.main(["last", "seed=5", "--cfg", "job"]) == OK
    shown = capsys.readouterr().out
    assert "seed: 5" in shown and "weight_bits: 4" in shown


@pytest.mark.parametrize("words", [["nope"], ["last", "quantt=w8a8"], ["last", "quant=nope"]])
def test_no_such_run_or_change_is_refused(
    words: list[str], own: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(own, outputs)
    assert again.main(words) == INVALID
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "settings"])
def test_a_shell_takes_the_command_of_a_record(typed: bool, own: Path, outputs: Path) -> None:
    command = command_of(leave(own, outputs, typed=typed))
    assert command.startswith("python -m qexp ")
    words = command.replace("python", sys.executable, 1)
    done = subprocess.run(["bash", "-c", f"{words} --cfg job"], capture_output=True, text=True)
    assert done.returncode == OK, done.stderr
    assert "weight_bits: 4" in done.stdout
    assert ("name: tickets" in done.stdout) == typed


def test_paths_are_quoted_once(outputs: Path) -> None:
    tree = experiment("task=mrpc", "model.name=/models/mine", "data.root=/some/rows").model_dump(mode="json")
    command = command_of(RunView(record(tree)))
    assert "++model.name=/models/mine" in command or " model.name=/models/mine" in command
    assert "'" not in command.replace("'placement", "")


def test_several_folders_are_searched_and_stand_in_the_record(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more" / "recipe").mkdir(parents=True)
    (tmp_path / "more" / "recipe" / "quick.yaml").write_text("# @package _global_\nseed: 9\n")
    (tmp_path / "more" / "mine.yaml").write_text("defaults: [config, _self_]\ncalibration: {samples: 17}\n")
    folders = ["--config-dir", str(own), "--config-dir", str(tmp_path / "more")]
    assert run.main([*folders, "task=tickets", "recipe=quick", "--cfg", "job"]) == OK
    shown = capsys.readouterr().out
    assert "name: tickets" in shown and "seed: 9" in shown
    assert run.main([*folders, "--config-name", "mine", "task=tickets", "--cfg", "job"]) == OK
    shown = capsys.readouterr().out
    assert "name: tickets" in shown and "samples: 17" in shown
