"""Command-line arguments: names of sweeps, and paths that Hydra must read unchanged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from qexp.cli.overrides import CommandLine
from qexp.environment import sweeps_folder
from qexp.errors import ConfigError

SWEEP = ("-m", "task=cola,mrpc", "quant=w8a8")
HOSTILE = (
    "two words", "it's", '"quoted"', "a=b", "a,b", "${x}", "${oc.env:HOME}", "$x", "back\\slash", "\\${x}",
    "\\'", "end\\", "{a,b", "[0]", "100%", "a#b", "a:b", "ü", "-m", "'", "*",
)  # fmt: skip


@pytest.fixture
def sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sweeps, named ``sweeps`` from the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps" / "inner").mkdir(parents=True)
    for name in ("table", "table.v2", "inner/table"):
        (tmp_path / "sweeps" / f"{name}.yaml").write_text(f"# {name}\n")
    return tmp_path / "sweeps"


def _sweep_folder(words: list[str]) -> Path:
    """Where Hydra and OmegaConf understand that a sweep is written to."""
    (word,) = (word for word in words if word.startswith("hydra.sweep.dir="))
    value = OverridesParser.create().parse_override(word).value()
    return Path(OmegaConf.create({"dir": value}).dir)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "sweep"),
        (["-m", "task=cola,mrpc"], "sweep"),
        (["--config-dir", "sweeps", "--config-name", "table"], "table"),
        (["--config-dir=sweeps", "--config-name=table.yaml"], "table"),
        (["-cd", "sweeps", "-cn", "table.v2"], "table.v2"),
        (["-cd", "sweeps", "-cn", "inner/table"], "table"),
        (["--config-name"], "sweep"),
    ],
)
def test_a_sweep_has_the_name_of_its_file(words: list[str], name: str) -> None:
    assert CommandLine(words).name == name


@pytest.mark.parametrize(
    "how",
    [
        ["hydra/launcher=joblib"],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4"],
        ["hydra/launcher=slurm_gpu", "+hydra.launcher.partition=a"],
        ["++hydra.launcher.timeout_min=3"],
        ["hydra.sweep.dir=elsewhere"],
        ["++hydra.sweep.dir=elsewhere"],
        ["--dry-run"],
        ["--multirun"],
    ],
    ids=" ".join,
)
def test_identity_does_not_depend_on_how_jobs_are_run(how: list[str]) -> None:
    assert CommandLine([*SWEEP, *how]).identity == CommandLine(SWEEP).identity


def test_identity_does_not_depend_on_the_order_of_words() -> None:
    assert CommandLine(SWEEP[::-1]).identity == CommandLine(SWEEP).identity


@pytest.mark.parametrize("more", ["seed=1", "+recipe=qdqbert", "~method", "hydra/sweeper=optuna", "task=rte"])
def test_identity_depends_on_what_is_run(more: str) -> None:
    assert CommandLine([*SWEEP, more]).identity != CommandLine(SWEEP).identity


def test_identity_depends_on_the_name_and_the_content_of_the_file(sweeps: Path) -> None:
    names = ("table", "table.v2", "inner/table")
    words = [["--config-dir", "sweeps", "--config-name", name] for name in names]
    before = [CommandLine(each).identity for each in words]
    assert len({*before, CommandLine([]).identity}) == 4
    assert CommandLine(["-cd=sweeps", "-cn=table.yaml"]).identity == before[0]
    for name, each, old in zip(names, words, before, strict=True):
        (sweeps / f"{name}.yaml").write_text("# changed\n")
        assert CommandLine(each).identity != old


def test_identity_is_that_of_the_same_file_from_anywhere(
    sweeps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = CommandLine(["-cd", "sweeps", "-cn", "table"]).identity
    monkeypatch.chdir(tmp_path.parent)
    assert CommandLine(["-cd", str(sweeps), "-cn", "table"]).identity == before


@pytest.mark.parametrize("part", HOSTILE)
def test_hydra_reads_hostile_paths_as_they_are(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QEXP_OUTPUTS", str(tmp_path / part))
    words = CommandLine(SWEEP)
    assert _sweep_folder(words.for_hydra()).parents[2] == tmp_path / part
    assert _sweep_folder(words.for_hydra(tmp_path / part)) == tmp_path / part


@given(st.text("ab \\'\"${}=,", min_size=1))
def test_hydra_reads_any_path_as_it_is(part: str) -> None:
    path = Path("/") / part
    assert _sweep_folder(CommandLine([]).for_hydra(path)) == path


def test_every_attempt_has_its_own_folder_under_its_sweep(outputs: Path) -> None:
    words = CommandLine(SWEEP)
    first, second = (_sweep_folder(words.for_hydra()) for _ in range(2))
    assert first != second
    assert first.parent == second.parent == outputs / "sweeps" / f"sweep-{words.identity}"
    assert not outputs.exists()


def test_a_folder_that_was_named_is_left_alone() -> None:
    words = [*SWEEP, "hydra.sweep.dir=here"]
    assert CommandLine(words).for_hydra() == words


def test_hydra_never_sees_the_word_that_it_does_not_know() -> None:
    words = CommandLine(["task=mrpc", "--dry-run"])
    assert words.dry_run
    assert "--dry-run" not in words.for_hydra() + words.for_hydra(Path(os.sep))


@pytest.mark.parametrize(
    "words",
    [
        ["task=mrpc", "--cfg", "job"],
        ["--cfg", "job", "task=mrpc"],
        ["-c", "job", "task=mrpc", "seed=1"],
        ["task=cola,mrpc", "seed=1", "-m"],
        ["-m", "task=cola,mrpc"],
        ["--config-dir", "sweeps", "--config-name", "table"],
        ["--config-name", "table", "seed=1", "--config-dir", "sweeps"],
        ["--info", "defaults", "task=mrpc"],
        ["quant=w8a8", "--help"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_options_may_stand_before_or_behind(words: list[str]) -> None:
    parser = get_args_parser()
    own = [word for word in parser.parse_args(words).overrides if "=" in word]
    for more in (CommandLine(words).for_hydra(), CommandLine(words).for_hydra(Path("/here"))):
        assert set(own) <= set(parser.parse_args(more).overrides)


@pytest.mark.parametrize(
    ("word", "given"),
    [
        ("task.max_length=64", "task.max_length=choice(64)"),
        ("++task.metrics=[f1,accuracy]", "++task.metrics=choice([f1,accuracy])"),
        ("task.max_length=64,128", "task.max_length=64,128"),
        ("task.max_length=range(1,3)", "task.max_length=range(1,3)"),
        ("finetune.epochs=2", "finetune.epochs=2"),
        ("seed=1", "seed=1"),
    ],
)
def test_value_of_a_swept_group_is_left_to_the_jobs(word: str, given: str) -> None:
    assert given in CommandLine(["-m", "task=cola,mrpc", word]).for_hydra()
    assert word in CommandLine(["task=cola", word]).for_hydra()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["recipe=q8bert", "recipe=qdqbert"],
            ["recipe=q8bert and recipe=qdqbert", "-m recipe=q8bert,qdqbert"],
        ),
        (["quant=w8a8", "seed=1", "quant=w4a8"], ["quant=w8a8 and quant=w4a8"]),
        (["seed=1", "++seed=2"], ["seed=1 and ++seed=2", "-m seed=1,2"]),
        (["method.epochs=1", "method.epochs=1"], ["method.epochs is given twice"]),
        (["-m", "quant=w8a8,w4a8", "quant=w8a8"], ["quant=w8a8,w4a8 and quant=w8a8"]),
        (["~tracker", "tracker=wandb"], ["~tracker and tracker=wandb"]),
        (["hydra.launcher.n_jobs=2", "hydra.launcher.n_jobs=4"], ["hydra.launcher.n_jobs is given twice"]),
        (["--config-name", "a", "-cn=b"], ["--config-name a and -cn=b"]),
        (["recipe=[q8bert,qdqbert]"], ["recipe=[q8bert,qdqbert]", "-m recipe=q8bert,qdqbert"]),
    ],
    ids=str,
)
def test_no_word_takes_the_place_of_another(words: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        CommandLine(words).check()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "task=cola,mrpc", "quant=w8a8,w4a8", "seed=1,2"],
        ["task=mrpc", "task.metrics=[f1,accuracy]", "++task.text=[a,b]"],
        ["--config-dir", "sweeps", "--config-name", "table", "seed=1"],
        ["quant=w8a8", "quant.weight_bits=4", "hydra/callbacks=[a,b]"],
        ["quant.overrides={'*.pooler.*':{weight_bits:8}}"],
    ],
    ids=" ".join,
)
def test_words_that_all_count_pass(words: list[str]) -> None:
    CommandLine(words).check()


@pytest.mark.parametrize("written", [["--config-dir", "sweeps"], ["--config-dir=sweeps"], ["-cd", "sweeps"]])
def test_sweeps_of_qexp_are_found_from_any_folder(
    written: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*written, "--config-name", "smoke", "model.name=sweeps"]
    assert CommandLine(words).own_folders() == [sweeps_folder()]
    assert CommandLine(words).all[-1] == "model.name=sweeps"
    (tmp_path / "sweeps").mkdir()
    assert CommandLine(words).own_folders() == [tmp_path / "sweeps"]
