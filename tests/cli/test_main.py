"""Entry point: commands, overrides, misspelled commands, and the module names of qexp 0.1."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from qexp import __version__
from qexp.cli.help import default_options
from qexp.cli.main import COMMANDS, commands_by_purpose, is_misspelled, run_command
from qexp.environment import conf_folder
from qexp.errors import INVALID, OK
from qexp.records.record import write
from tests.support.record_factory import experiment, record

NEW = {
    "check",
    *(
        "compare",
        "export-encodings",
        "import",
        "runs",
        "show",
        "diff",
        "again",
        "open",
        "clean",
        "completion",
    ),
}
"""Commands that 0.1 had not, or as an option of another."""


def qexp(*arguments: str, module: str = "qexp") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)


def test_the_help_lists_every_command() -> None:
    done = qexp("--help")
    assert done.returncode == OK
    listed = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for purpose, of_purpose in commands_by_purpose().items():
        start = listed.index(purpose)
        lines = [f"{name} {line}" for name, line in of_purpose.items()]
        assert listed[start + 1 : start + 1 + len(lines)] == lines


def test_the_help_marks_the_defaults_that_the_configuration_has() -> None:
    groups = yaml.safe_load((conf_folder() / "config.yaml").read_text())["defaults"]
    chosen = {name: option for each in groups if isinstance(each, dict) for name, option in each.items()}
    marked = set(re.findall(r"(\w+)\*", qexp("--help").stdout))
    expected = {str(of) for name, of in chosen.items() if " " not in name and of not in ("???", None)}
    assert marked == expected
    assert default_options() == {
        name: of for name, of in chosen.items() if " " not in name and of not in ("???", None)
    }


def test_the_help_has_the_options_of_ones_own_folder(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "tickets.yaml").write_text("name: tickets\n")
    assert "tickets" in qexp("--config-dir", str(tmp_path), "--help").stdout


def test_no_words_at_all_are_an_error_and_the_version_is_ours() -> None:
    done = qexp()
    assert (done.returncode, done.stdout) == (INVALID, "")
    assert "qexp --help" in done.stderr
    assert qexp("--version").stdout == f"qexp {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_under_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_command(name, ["--help"])
    assert end.value.code == OK
    assert capsys.readouterr().out.startswith(f"usage: qexp {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_had_a_module_that_still_runs(name: str) -> None:
    if name in NEW:
        return
    alias = import_module(f"qexp.{name}")
    assert alias.__file__ is not None
    assert alias.__file__.endswith(f"aliases/{name}.py")


def test_an_alias_says_where_the_command_went() -> None:
    done = qexp("--help", module="qexp.report")
    assert done.returncode == OK
    assert done.stdout.startswith("usage: qexp report")
    assert done.stderr == "python -m qexp.report is now: qexp report, or python -m qexp report\n"


@pytest.mark.parametrize(("word", "close"), [("reprot", "report"), ("benchmark", "bench"), ("foo", None)])
def test_a_misspelled_command_is_named_with_what_is_close(word: str, close: str | None) -> None:
    done = qexp(word, "--html")
    assert (done.returncode, done.stdout) == (INVALID, "")
    (line,) = done.stderr.splitlines()
    assert word in line
    assert all(name in line for name in COMMANDS)
    assert ("did you mean" in line) == (close is not None)
    if close:
        assert f"did you mean {close}?" in line


@pytest.mark.parametrize(
    "word", ["task=mrpc", "+x=1", "~x", "-m", "--multirun", "--cfg", "hydra.verbose=true", "a/b=c"]
)
def test_overrides_and_options_are_no_commands(word: str) -> None:
    assert not is_misspelled(word)


def code_of(name: str, *words: str) -> int:
    try:
        return run_command(name, words)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistyped_option_of_any_command_ends_with_the_code_of_a_refusal(
    name: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(name, *(["last"] if name == "again" else []), "--nonsense") == INVALID
    shown = capsys.readouterr()
    assert shown.out == "" and "Traceback" not in shown.err
    assert not outputs.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("show", ["nope"]), ("diff", ["nope", "last"]), ("again", ["nope"]), ("compare", ["nope", "last"]),
        ("report", ["nope"]), ("inspect", ["nope"]), ("sensitivity", ["nope"]), ("bench", ["nope"]),
        ("search", ["nope", "--bits", "w4a8,w8a8", "--loss", "1"]), ("predict", ["nope", "rows.csv"]),
        ("publish", ["nope", "folder"]), ("build", ["nope"]), ("export-encodings", ["nope", "folder"]),
        ("runs", ["task=nope", "--sort=nope"]), ("plan", ["task=nope"]), ("clean", ["--outputs", "/nowhere"]),
        ("store", ["ls", "--outputs", "/nowhere"]), ("completion", ["fish"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_run_or_value_that_is_not_there_ends_with_the_code_of_a_refusal(
    name: str, words: list[str], outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(record(experiment(quant="w8a8", method={"kind": "ptq"})), outputs / "records")
    assert code_of(name, *words) == INVALID
    assert "Traceback" not in capsys.readouterr().err
    assert len(list(outputs.rglob("*.json"))) == 1
