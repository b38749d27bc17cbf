"""Completion of the shells: which words are offered, and what bash and zsh make of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qexp.cli.completion import candidates, main
from qexp.cli.main import COMMANDS
from qexp.errors import INVALID
from qexp.records.record import write
from tests.support.record_factory import experiment, failed, record


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("qexp sen", ["sensitivity"]),
        ("qexp task=mr", ["task=mrpc"]),
        ("qexp -m task=mrpc,co", ["task=mrpc,cola"]),
        ("qexp task=mrpc recipe=aimet/w8a8_mr", ["recipe=aimet/w8a8_mrpc"]),
        ("qexp task=mrpc calibrat", ["calibration.", "calibrator.", "calibrator="]),
        ("qexp task=mrpc method.epo", ["method.epochs="]),
        ("qexp task=mrpc scheme.weight.gra", ["scheme.weight.granularity="]),
        ("qexp plan budget=", ["budget=full", "budget=smoke"]),
        ("qexp --multi", ["--multirun"]),
        ("qexp report --inter", ["--intervals"]),
        ("qexp again last quant=fp3", ["quant=fp32"]),
        ("qexp completion z", ["zsh"]),
        ("qexp task=nope", []),
        ("qexp 'open quote", []),
        ("qexp show nope", []),
    ],
)
def test_what_may_follow(line: str, words: list[str]) -> None:
    assert candidates(line) == words


def test_first_come_commands_and_groups() -> None:
    words = candidates("qexp ")
    assert {*COMMANDS, "task=", "quant=", "tags=", "seed="} <= {*words}


def test_own_folders_and_names_of_runs(
    tmp_path: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine" / "task").mkdir(parents=True)
    (tmp_path / "mine" / "task" / "tickets.yaml").write_text("")
    monkeypatch.setenv("QEXP_CONF", str(tmp_path / "mine"))
    assert candidates("qexp task=ti") == ["task=tickets"]
    write(
        record(experiment(quant="w8a8", method={"kind": "ptq"}), key="abcdef0123456789"), outputs / "records"
    )
    write(
        failed(experiment("cola", quant="w8a8", method={"kind": "qat"}), key="fedcba9876543210"),
        outputs / "records",
    )
    assert candidates("qexp show ") == ["abcdef01", "fedcba98", "last", "mrpc", "mrpc/w8a8"]
    assert candidates("qexp diff last mrpc/") == ["mrpc/w8a8"]
    assert candidates("qexp show last ") == []


BASH = """
COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}
_qexp; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
compadd() {{ while [[ $1 != -- ]] {{ shift }}; shift; (( $# )) && print -l -- "$@" }}
words=({line}); [[ '{line}' == *' ' ]] && words+=('')
CURRENT=$#words; _qexp
"""


def completed(shell: str, line: str) -> list[str]:
    """What a shell offers behind a line, by its own function of completion."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    printed = [sys.executable, "-m", "qexp", "completion", shell]
    script = subprocess.run(printed, capture_output=True, text=True, check=True).stdout
    before, behind = ("", BASH) if shell == "bash" else ("compdef() {}", ZSH)
    test = f"{before}\n{script}\n{behind.format(line=line)}\ntrue"
    options = ["-f"] if shell == "zsh" else ["--norc"]
    done = subprocess.run([shell, *options, "-c", test], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_commands_options_and_names(shell: str, outputs: Path) -> None:
    write(record(experiment(quant="w8a8", method={"kind": "ptq"}), key="0123456789ab"), outputs / "records")
    assert completed(shell, "qexp sens") == ["sensitivity"]
    # bash takes what stands behind the sign for a word of its own, zsh takes the whole
    options = ["full", "smoke"] if shell == "bash" else ["budget=full", "budget=smoke"]
    assert completed(shell, "qexp task=mrpc budget=") == options
    assert completed(shell, "qexp show ") == ["01234567", "last", "mrpc", "mrpc/w8a8"]


@pytest.mark.parametrize("words", [[], ["fish"]])
def test_other_shells_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == INVALID
