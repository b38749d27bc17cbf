"""Tasks, models and recipes from a folder of one's own: --config-dir and QEXP_CONF."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from qexp.cli import run
from qexp.cli.overrides import CommandLine
from qexp.errors import INVALID, OK, ConfigError
from qexp.execution.job import Job
from qexp.records.record import read
from qexp.reporting.command import command_of
from qexp.reporting.run_view import RunView
from tests.support.row_files import write_csv

QUICK = ("deploy=none", "machine.progress=false", "machine.threads=1")


@pytest.fixture
def own(tiny_bert: Path, tmp_path: Path) -> Path:
    """A folder with a task, a model and a recipe."""
    rows = {"subject": [f"{each % 2} {each}" for each in range(40)], "queue": ["a", "b"] * 20}
    write_csv(tmp_path / "tickets.csv", rows)
    task = "name: tickets\nkind: classification\ntext: [subject]\nlabel: queue\nlabels: [a, b]\n"
    task += "metrics: [accuracy]\nevaluation: {validation: validation}\n"
    task += "finetune: {learning_rate: 1e-4, epochs: 1}\n"
    recipe = "# @package _global_\ndefaults:\n  - override /quant: w4a8\n  - override /method: ptq\n"
    files = {
        "task/tickets.yaml": task,
        "model/mine.yaml": f"name: {tiny_bert}\nrevision: null\n",
        "recipe/quick.yaml": f"{recipe}  - override /budget: smoke\n",
    }
    for name, text in files.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(text)
    return tmp_path / "mine"


def words(own: Path) -> list[str]:
    return ["task=tickets", "model=mine", "recipe=quick", f"data.path={own.parent / 'tickets.csv'}", *QUICK]


def shown(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run.main([*arguments, "--cfg", "job"]) == OK
    return capsys.readouterr().out


def record() -> Any:
    (file,) = (Path(os.environ["QEXP_OUTPUTS"]) / "records").glob("*.json")
    return read(file)


@pytest.mark.parametrize("variable", [False, True], ids=["--config-dir", "QEXP_CONF"])
def test_a_run_with_options_of_ones_own(variable: bool, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable:
        monkeypatch.setenv("QEXP_CONF", str(own))
    before = [] if variable else ["--config-dir", str(own)]
    assert run.main([*before, *words(own)]) == OK
    made = record()
    assert made.experiment["task"]["name"] == "tickets"
    assert made.experiment["quant"]["weight_bits"] == 4
    assert made.recipe == "quick"
    command = command_of(RunView(made)).split()
    assert command[:5] == ["python", "-m", "qexp", f"--config-dir={own}", "task=tickets"]
    monkeypatch.delenv("QEXP_CONF", raising=False)
    assert run.main(command[3:]) == OK
    assert record().key == made.key
    assert {stage["state"] for stage in record().stages} == {"cached"}


def test_both_folders_count(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more" / "placement").mkdir(parents=True)
    (tmp_path / "more" / "placement" / "narrow.yaml").write_text("name: narrow\nsites: [linear.weight]\n")
    monkeypatch.setenv("QEXP_CONF", str(tmp_path / "more"))
    told = shown(["--config-dir", str(own), "task=tickets", "placement=narrow"], capsys)
    assert "name: tickets" in told and "name: narrow" in told


@pytest.mark.parametrize("variable", [False, True], ids=["two of --config-dir", "and QEXP_CONF"])
def test_every_folder_stands_in_the_words_of_the_record(
    variable: bool, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[str] | None] = []
    monkeypatch.setattr(Job, "run", lambda job: found.append(job.overrides) or OK)
    more = tmp_path / "a folder, of more"
    (more / "placement").mkdir(parents=True)
    (more / "placement" / "narrow.yaml").write_text("name: narrow\nsites: [linear.weight]\n")
    folders = ["--config-dir", str(own)]
    if variable:
        monkeypatch.setenv("QEXP_CONF", str(more))
    else:
        folders += ["--config-dir", str(more)]
    assert run.main([*folders, "task=tickets", "placement=narrow"]) == OK
    (words,) = found
    assert words == [f"--config-dir={own}", f"--config-dir={more}", "task=tickets", "placement=narrow"]
    monkeypatch.delenv("QEXP_CONF", raising=False)
    assert run.main(words) == OK
    assert found == [words, words]


def test_a_sweep_over_options_of_ones_own(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEXP_CONF", str(own))
    assert run.main(["-m", *words(own), "seed=1,2", "--dry-run"]) == OK


def test_an_option_that_is_nowhere_names_those_of_ones_own(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--config-dir", str(own), "task=ticket"]) == INVALID
    told = capsys.readouterr().err
    assert "did you mean task=tickets?" in told and "mrpc" in told


def test_files_with_names_of_qexps_are_refused(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "task" / "mrpc.yaml").write_text("name: mine\n")
    assert run.main(["--config-dir", str(own), "task=mrpc"]) == INVALID
    told = capsys.readouterr().err
    assert str(own) in told and "task/mrpc.yaml" in told and "rename" in told


def test_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEXP_CONF", str(tmp_path / "typo"))
    with pytest.raises(ConfigError, match=r"QEXP_CONF=.*typo: no such folder"):
        CommandLine(["task=mrpc"]).for_hydra()


def test_a_search_path_beside_the_variable_is_refused(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEXP_CONF", str(own))
    with pytest.raises(ConfigError, match=r"hydra\.searchpath=.*QEXP_CONF"):
        CommandLine(["task=mrpc", "hydra.searchpath=[file:///elsewhere]"]).check()
