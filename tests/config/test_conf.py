"""conf/ and sweeps/: every option composes and validates, and the files follow their conventions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from qexp.config import Experiment
from qexp.config.task import OPEN_METRICS
from qexp.environment import conf_folder
from tests.conftest import compose, experiment

GROUPS = sorted(
    folder.name for folder in conf_folder().iterdir() if folder.is_dir() and folder.name != "hydra"
)
OWN_ROWS = (
    *("classification", "regression", "question_answering", "multi_label", "embedding"),
    *("token_classification", "retrieval", "reranking"),
)
"""Tasks whose rows are the user's."""
OPTIONS = [(group, file.stem) for group in GROUPS for file in sorted((conf_folder() / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group: str, option: str, tmp_path: Path) -> None:
    task = "translation" if option.startswith("transformer") else "mrpc"
    words = [] if group == "task" else [f"task={task}"]
    words += ["data.path=rows.csv"] if group == "task" and option in OWN_ROWS else []
    words += ["quant=fp32"] if group == "method" and option.endswith("control") else []
    words += ["finetune=neurst"] if (group, option) == ("method", "neurst") else []
    words += ["calibrator=max"] if (group, option) == ("quant", "nvfp4") else []
    if (group, option) == ("calibrator", "imported"):
        (tmp_path / "ranges.json").write_text("{}")
        words.append(f"calibrator.path={tmp_path}/ranges.json")
    made = experiment(*words, f"{group}={option}")
    assert made.task.metrics or option in OPEN_METRICS


@pytest.mark.parametrize("task", [option for group, option in OPTIONS if group == "task"])
@pytest.mark.parametrize("quant", ["fp32", "w8a8", "w4a8"])
def test_every_task_goes_with_the_main_bit_widths(task: str, quant: str) -> None:
    """Sections composed once each are put together, as no task sets bit-widths."""
    own = ["data.path=rows.csv"] if task in OWN_ROWS else []
    tree = compose(f"task={task}", *own)
    tree["quant"] = compose("task=mrpc", f"quant={quant}")["quant"]
    made = Experiment.model_validate(tree)
    names = {"translation": "multi30k_en_de", **dict.fromkeys(OWN_ROWS, "rows")}
    assert made.task.name == names.get(task, task)
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
    words = ["calibrator=max"] if quant == "nvfp4" else []
    assert experiment("task=mrpc", f"quant={quant}", *words).quant.name == quant.replace("_", "")


SWEEPS = sorted((conf_folder().parent / "sweeps").glob("*.yaml"))
LAUNCHERS = sorted((conf_folder() / "hydra" / "launcher").glob("*.yaml"))


def _header(sweep: Path) -> str:
    """The comment that a sweep opens with, as one line."""
    lines = sweep.read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), lines))


def _loader(sweep: Path) -> ConfigLoaderImpl:
    path = create_config_search_path(str(conf_folder()))
    path.prepend("command-line", f"file://{sweep.parent}", "schema")
    return ConfigLoaderImpl(path)


def _combinations(params: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Words of each job, as Hydra's own sweeper splits them."""
    words = [f"{name}={value}" for name, value in params.items()]
    (batch,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), None)
    return [tuple(job) for job in batch]


MOST = 200
"""Combinations of a sweep that are composed one by one, each in a quarter of a second."""


def _near(combinations: Sequence[Sequence[str]], values: int) -> list[Sequence[str]]:
    """Those that differ from the first in so many values at most; two hold every pair of values."""
    first = combinations[0]
    return [job for job in combinations if sum(a != b for a, b in zip(job, first, strict=True)) <= values]


def _experiment(config: DictConfig) -> Experiment:
    ours = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return Experiment.model_validate(OmegaConf.to_container(ours, resolve=True))


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda file: file.stem)
def test_a_sweep_opens_with_what_one_must_know(sweep: Path) -> None:
    header = _header(sweep)
    assert header.startswith(f"python -m qexp --config-dir sweeps --config-name {sweep.stem} ")
    places = [header.index(part) for part in (" Cost: ", " Fills: ", " Held against: ")]
    assert places == sorted(places)


FIXED = [file for file in SWEEPS if file.stem != "search"]
"""Sweeps of given values; a search chooses them."""


@pytest.mark.parametrize("sweep", FIXED, ids=lambda file: file.stem)
def test_a_sweep_has_as_many_jobs_as_it_says_and_both_ends_compose(sweep: Path) -> None:
    loader = _loader(sweep)
    first = loader.load_configuration(sweep.stem, [], RunMode.MULTIRUN)
    assert first.hydra.mode == RunMode.MULTIRUN
    combinations = _combinations(first.hydra.sweeper.params)
    said = re.search(r"Cost: (\d+) jobs", _header(sweep))
    assert said
    assert int(said[1]) == len(combinations)
    _compose(loader, first, [combinations[0], combinations[-1]][: len(combinations)])


@pytest.mark.slow
@pytest.mark.parametrize("sweep", FIXED, ids=lambda file: file.stem)
def test_every_combination_of_a_sweep_composes(sweep: Path) -> None:
    loader = _loader(sweep)
    first = loader.load_configuration(sweep.stem, [], RunMode.MULTIRUN)
    combinations = _combinations(first.hydra.sweeper.params)
    _compose(loader, first, combinations if len(combinations) <= MOST else _near(combinations, 2))


def _compose(loader: ConfigLoaderImpl, first: DictConfig, jobs: Sequence[Sequence[str]]) -> None:
    """Compose jobs of a sweep, which differ from each other."""
    made = {_experiment(loader.load_sweep_config(first, [*job])).model_dump_json() for job in jobs}
    assert len(made) == len(jobs)


def test_the_search_composes_at_both_ends_of_its_intervals() -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="hydra-optuna-sweeper is not installed")
    (sweep,) = (file for file in SWEEPS if file.stem == "search")
    loader = _loader(sweep)
    first = loader.load_configuration(sweep.stem, [], RunMode.MULTIRUN)
    sweeper = first.hydra.sweeper
    assert f"Cost: {sweeper.n_trials} jobs" in _header(sweep)
    assert sweeper.direction == "maximize"
    ends = {name: re.findall(r"[\d.]+e-?\d+", value) for name, value in sweeper.params.items()}
    for end in (0, 1):
        words = [f"{name}={of[end]}" for name, of in ends.items()]
        assert _experiment(loader.load_sweep_config(first, words)).method.kind == "qat"


@pytest.mark.parametrize("name", [*(file.stem for file in LAUNCHERS), "joblib", "submitit_local", "basic"])
def test_every_launcher_composes(name: str) -> None:
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        overrides = ["task=mrpc", f"hydra/launcher={name}"]
        launcher = hydra.compose("config", overrides, return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith("Launcher")
    if name.startswith("slurm"):
        assert launcher._target_.endswith("SlurmLauncher")
        assert launcher.signal_delay_s < 60 * launcher.timeout_min
        assert launcher.max_num_timeout > 0


def test_a_pinned_revision_goes_with_its_name_only(tmp_path: Path) -> None:
    model = experiment("task=mrpc", "model=bge_small").model
    assert model.revision is not None and len(model.revision) == 40
    assert experiment("task=mrpc", "model=bge_small", "model.revision=main").model.revision == "main"
    assert experiment("task=mrpc", "model=bge_small", f"model.name={tmp_path}").model.revision is None
    assert experiment("task=mrpc", "model=camembert").model.revision is None
