"""Environment variables: misspelled names are rejected, and the list of names is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import qexp
from qexp.environment import KNOWN, check_environment, unread_variable
from qexp.errors import ConfigError

ROOT = Path(qexp.__file__).parent.parent


def test_variables_that_are_read_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KNOWN:
        monkeypatch.setenv(name, "/somewhere")
    check_environment()
    assert unread_variable() is None


def test_a_misspelled_variable_is_refused_with_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEXP_DATE", "/rows")
    with pytest.raises(ConfigError, match=r"QEXP_DATE=/rows.*unset QEXP_DATE; did you mean QEXP_DATA\?"):
        check_environment()


def test_every_variable_of_the_project_is_in_the_list() -> None:
    files = [*ROOT.glob("qexp/**/*.py"), *ROOT.glob("conf/**/*.yaml"), *ROOT.glob("benchmarks/**/*.py")]
    files += [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    named = {
        name for file in files for name in re.findall(r"\bQEXP_[A-Z0-9_]*[A-Z]\b", file.read_text("utf-8"))
    }
    assert named == set(KNOWN)


@pytest.mark.parametrize(
    "words", [["report"], ["inspect", "abcdef"], ["bench"], ["store", "ls"], ["dashboard", "--entity", "me"]]
)
def test_no_command_passes_over_a_misspelled_variable(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QEXP_OUTPUT", str(tmp_path))
    command = [sys.executable, "-m", f"qexp.{words[0]}", *words[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "did you mean QEXP_OUTPUTS?" in done.stderr
    assert "Traceback" not in done.stderr
