"""Entry point: commands, overrides, misspelled commands, and the module names of qexp 0.1."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from qexp.cli.main import COMMANDS, describe_commands, is_misspelled, run_command
from qexp.errors import INVALID, OK


def qexp(*arguments: str, module: str = "qexp") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)


def test_the_help_lists_every_command() -> None:
    done = qexp("--help")
    assert done.returncode == OK
    listed = [line.strip() for line in done.stdout.splitlines()]
    assert {line.strip() for line in describe_commands().splitlines()} <= set(listed)


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"plan"}))
def test_every_command_has_a_help_under_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_command(name, ["--help"])
    assert end.value.code == OK
    assert capsys.readouterr().out.startswith(f"usage: qexp {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_had_a_module_that_still_runs(name: str) -> None:
    if name in ("compare", "export-encodings", "import"):  # an option of report in 0.1; new
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
