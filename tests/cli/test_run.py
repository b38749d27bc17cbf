"""The command line as a process: exit codes, overrides, and startup time of light commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from qexp.errors import FAILED, INVALID


def qexp(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qexp", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=250)


def test_help_speaks_of_the_project_and_lists_its_groups(tmp_path: Path) -> None:
    done = qexp("--help", cwd=tmp_path)
    assert done.returncode == 0
    for words in (
        "fine-tune",
        "task: ax, classification, cola",
        "quant: fp32",
        "QEXP_OUTPUTS",
        "qexp report",
    ):
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_cfg_prints_the_configuration_and_any_pair_of_bits_works(tmp_path: Path) -> None:
    done = qexp("task=mrpc", "quant=w5a7", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0
    assert "weight_bits: 5" in done.stdout
    assert "activation_bits: 7" in done.stdout


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["quant=w8a8"], ["task", "mrpc", "stsb"]),
        (["task=mrcp"], ["task=mrcp", "did you mean task=mrpc? task has mrpc, "]),
        (["task=mrpc", "quant=w17a8"], ["w17a8", "w8a8", "2 to 16"]),
        (["task=mrpc", "recipe=q8bart"], ["recipe=q8bart", "qdqbert", "did you mean recipe=q8bert?"]),
        (["-m", "task=mrpc", "recipe=q8bert,q8bart"], ["recipe=q8bart", "did you mean recipe=q8bert?"]),
        (["task=mrpc", "recipe=q8bart", "--dry-run"], ["recipe=q8bart", "did you mean recipe=q8bert?"]),
        (["task=mrpc", "recipe=aimet/w8a8_mrcp"], ["did you mean recipe=aimet/w8a8_mrpc?"]),
        (
            ["task=mrpc", "tracker=[csv,tesnorboard]"],
            ["tracker=tesnorboard", "did you mean tracker=tensorboard?"],
        ),
        (["task=mrpc", "recipe=null"], ["=null", "leave the word out"]),
        (["task=mrpc", "quant=w8a8", "quant=w4a8"], ["quant=w8a8 and quant=w4a8"]),
        (["task=mrpc", "method.epoch=2"], ["method.epoch", "did you mean method.epochs?"]),
        (["task=mrpc", "quant=w1a8"], ["quant=w1a8: 2 is the least width of weights; quant takes any pair"]),
        (["task=mrpc", "quantt=w8a8"], ["quantt", "did you mean quant=w8a8?"]),
        (["task=mrpc", "quant=fp32", "method=qat"], ["method=qat", "nothing to quantize", "drop method"]),
        (["task=mrpc", "seed=-3"], ["seed=-3", "greater than or equal to 0"]),
        (["task=mrpc", "calibration.samples=many"], ["calibration.samples=many", "integer"]),
    ],
)
def test_wrong_words_are_one_clear_error(words: list[str], parts: list[str], tmp_path: Path) -> None:
    done = qexp(*words, cwd=tmp_path)
    assert done.returncode == INVALID
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") or done.stdout.startswith("## plan")
    for part in parts:
        assert part in done.stderr
    outputs = Path(os.environ["QEXP_OUTPUTS"])
    assert not list(outputs.glob("artifacts")) and not list(outputs.glob("records/*"))


def test_a_sweep_file_with_a_misspelled_recipe_is_one_clear_error(tmp_path: Path) -> None:
    lines = ["defaults: [config, override task: mrpc, override recipe: q8bart, _self_]"]
    (tmp_path / "mine.yaml").write_text("\n".join([*lines, "hydra:", "  mode: MULTIRUN", ""]))
    done = qexp("--config-dir", str(tmp_path), "--config-name", "mine", cwd=tmp_path)
    assert done.returncode == INVALID
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: recipe=q8bart: ")
    assert "did you mean recipe=q8bert? recipe has q8bert, " in line


def test_outputs_that_cannot_be_written_are_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("QEXP_OUTPUTS", str(tmp_path / "file" / "outputs"))
    done = qexp("task=mrpc", cwd=tmp_path)
    assert done.returncode == INVALID
    assert "Traceback" not in done.stderr
    assert "QEXP_OUTPUTS" in done.stderr


@pytest.mark.slow
def test_ctrl_c_in_a_training_leaves_a_record(tiny_bert: Path, tmp_path: Path, outputs: Path) -> None:
    words = ["task=mrpc", "quant=fp32", "data=sample", "finetune.epochs=1000", f"model.name={tiny_bert}"]
    command = [sys.executable, "-m", "qexp", *words, "machine.checkpoint_seconds=0.1", "machine.threads=1"]
    # A shell that starts this test in the background has it, and all its children, ignore Ctrl-C.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=listening) as process:
        try:
            while not list(outputs.glob("artifacts/2-fp32/*.work-*/scratch/last.ckpt")):
                assert process.poll() is None
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "goes on from here" in said
    (record,) = (outputs / "records").glob("*.json")
    assert json.loads(record.read_text())["error"]["type"] == "KeyboardInterrupt"


def test_a_sweep_runs_every_combination_and_fails_if_one_does(tiny_bert: Path, tmp_path: Path) -> None:
    done = qexp(
        "-m", "task=mrpc", "quant=fp32", f"model.name={tiny_bert},{tmp_path}/none", "data=sample",
        "deploy=none", "budget=smoke", "machine.threads=1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == FAILED
    assert "overview: sweep, sample, smoke" in done.stdout
    assert done.stdout.count("Verdict. On generated rows") == 1, "one over all jobs, at the end"
    assert "none" in done.stderr
    assert "Traceback" not in done.stderr
