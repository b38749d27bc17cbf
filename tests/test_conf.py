"""conf/ and sweeps/: every option composes and validates, and files keep to their form."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from qexp.cli import conf_folder
from tests.conftest import experiment

GROUPS = sorted(
    folder.name for folder in conf_folder().iterdir() if folder.is_dir() and folder.name != "hydra"
)
OPTIONS = [(group, file.stem) for group in GROUPS for file in sorted((conf_folder() / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group: str, option: str) -> None:
    task = "translation" if option.startswith("transformer") else "mrpc"
    words = [] if group == "task" else [f"task={task}"]
    made = experiment(*words, f"{group}={option}")
    assert made.task.metrics


@pytest.mark.parametrize("task", [option for group, option in OPTIONS if group == "task"])
@pytest.mark.parametrize("quant", ["fp32", "w8a8", "w4a8"])
def test_every_task_composes_with_the_main_bit_widths(task: str, quant: str) -> None:
    made = experiment(f"task={task}", f"quant={quant}")
    assert made.task.name == {"translation": "multi30k_en_de"}.get(task, task)
    assert made.quant.name == quant


@pytest.mark.parametrize("file", sorted(conf_folder().rglob("*.yaml")), ids=lambda file: file.stem)
def test_files_are_plain(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "_target_" not in text
    if "recipe" not in file.parts:
        assert "@package _global_" not in text
    if file.name != "config.yaml":
        assert "${" not in text.replace("${hydra.help", ""), "interpolations live in the hydra block only"


@pytest.mark.parametrize(
    "quant", [option for group, option in OPTIONS if group == "quant" and option != "fp32"]
)
def test_quant_files_mean_their_name(quant: str) -> None:
    assert experiment("task=mrpc", f"quant={quant}").quant.name == quant


def _sweeps() -> list[Path]:
    return sorted((conf_folder().parent / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("sweep", _sweeps(), ids=lambda file: file.stem)
def test_every_combination_of_a_sweep_composes(sweep: Path) -> None:
    import itertools

    text = sweep.read_text(encoding="utf-8")
    assert text.startswith("# python -m qexp"), "a sweep opens with its command"
    params = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    choices = [
        [f"{name}={choice.strip()}" for choice in str(value).split(",")] for name, value in params.items()
    ]
    for overrides in itertools.product(*choices):
        assert experiment(*overrides).task.name
