"""Tests of training in several processes: the same result as one process, and clean ends after failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from qexp.config import Machine
from qexp.context import check_devices
from qexp.errors import ConfigError, TrainingError
from qexp.training.trainer import CHECKPOINT
from tests.support.tiny_training import largest_difference, plan, trained

SECONDS = 10.0
"""In which processes must be gone."""


def _states(folder: Path) -> list[dict[str, torch.Tensor]]:
    """What each process ended with."""
    return [torch.load(file) for file in sorted(folder.glob("rank-*.pt"))]


def _gone(folder: Path) -> bool:
    """Whether no process of a training lives any more, within the time that it has for that."""
    pids = [int(file.read_text()) for file in folder.glob("pid-*")]
    assert len(pids) == 2
    until = time.monotonic() + SECONDS
    while any(_alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    return not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "tolerance"),
    [
        ("float", 1e-5),
        ("frozen", 1e-5),
        ("learned", 0.02),  # LSQ's factor counts the elements of a part, padding and all
    ],
)
def test_two_processes_end_where_one_does(mode: str, tolerance: float, tmp_path: Path) -> None:
    alone, expected = trained(plan(tmp_path / "one", last=3, mode=mode))
    facts, result = trained(plan(tmp_path / "two", last=3, mode=mode, devices=2))
    assert facts["loss"] == pytest.approx(alone["loss"], abs=1e-4)
    assert facts["saved"]
    assert largest_difference(expected, result) < tolerance
    first, second = _states(tmp_path / "two")
    assert all(torch.equal(first[name], second[name]) for name in first)
    scales = [name for name in result if name.endswith("log_scale")]
    assert bool(scales) == (mode == "learned")
    moved = [float(result[name].abs().max()) for name in scales]
    assert all(moved) and (mode != "learned" or max(moved) > 1e-2)
    assert _gone(tmp_path / "two")


@pytest.mark.slow
def test_a_killed_process_ends_the_training_which_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    numerics: dict[str, Any] = {"devices": 2, "accumulate": 2, "dropout": True, "mode": "learned"}
    whole, expected = trained(plan(tmp_path / "whole", **numerics))
    with pytest.raises(TrainingError, match=r"tiny: process 2 of 2 was killed by signal 9; .*goes on from"):
        trained(plan(tmp_path / "cut", **numerics, trouble=("die", 1, 7)), seconds=0)
    assert (tmp_path / "cut" / CHECKPOINT).exists()
    assert _gone(tmp_path / "cut")
    facts, result = trained(plan(tmp_path / "cut", **numerics))
    assert facts["resumed_at"] == 3
    assert facts["loss"] == whole["loss"]
    assert all(torch.equal(expected[name], result[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"nan": True}, TrainingError, "tiny: the loss is nan at step 1 of 6; lower the learning rate"),
        ({"trouble": ("raise", 1, 2)}, TrainingError, "tiny: RuntimeError: no luck with part 3"),
        ({"trouble": ("disk", 0, 2)}, OSError, os.strerror(28)),
    ],
)
def test_an_error_in_a_process_is_raised_here(
    fields: dict[str, Any], kind: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words) as caught:
        trained(plan(tmp_path, devices=2, **fields))
    assert any("of 2:\nTraceback" in note for note in caught.value.__notes__)
    assert getattr(caught.value, "errno", None) == (28 if kind is OSError else None)
    assert _gone(tmp_path)


def _in_a_session(folder: Path) -> subprocess.Popen[str]:
    """A program that trains in two processes, one of which hangs; returns when it does."""
    words = f"plan(Path({str(folder)!r}), devices=2, trouble=('hang', 1, 2))"
    # It tells of Ctrl-C itself, as jobs do: what Python would exit with depends on what libraries do at exit.
    code = (
        "import traceback\nfrom pathlib import Path\n"
        "from tests.support.tiny_training import plan, trained\n"
        f"try:\n    trained({words}, seconds=0)\n"
        "except KeyboardInterrupt:\n    traceback.print_exc()\n    raise SystemExit(130) from None"
    )
    # A shell that starts this test in the background has it, and all its children, ignore Ctrl-C.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    program = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()}, preexec_fn=listening,
    )  # fmt: skip
    until = time.monotonic() + 120
    while not (folder / CHECKPOINT).exists() and program.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    return program


@pytest.mark.slow
def test_when_the_parent_is_killed_the_others_end_themselves(tmp_path: Path) -> None:
    program = _in_a_session(tmp_path)
    program.kill()
    assert _gone(tmp_path)
    program.communicate()


@pytest.mark.slow
def test_ctrl_c_ends_all_and_is_told_once(tmp_path: Path) -> None:
    program = _in_a_session(tmp_path)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does
    _, message = program.communicate(timeout=SECONDS)
    assert program.returncode == 130, message
    assert message.count("KeyboardInterrupt") == 1, message
    assert _gone(tmp_path)


@pytest.mark.slow
def test_ctrl_c_saves_the_step_of_all_processes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"from step \d of 6") as end:
        trained(plan(tmp_path, devices=2, trouble=("interrupt the parent", 0, 2)))
    assert _gone(tmp_path)
    facts, _ = trained(plan(tmp_path, devices=2))
    assert f"from step {facts['resumed_at']} of 6" in str(end.value)
    assert len(facts["loss"]) == 6


def test_more_devices_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices(Machine(accelerator="gpu", devices=2))
    with pytest.raises(ConfigError, match=r"machine\.devices=3: .* sees 2 here; set machine\.devices=2 or"):
        check_devices(Machine(accelerator="gpu", devices=3))
    check_devices(Machine(devices=3))
