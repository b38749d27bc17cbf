"""Words before Hydra sees them: what is taken for what, and the right word for those of other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from qexp.cli.foreign_words import FOREIGN, foreign_word
from qexp.cli.overrides import CommandLine
from qexp.cli.words import FIELDS, meant, options_of, width_problem
from qexp.config import Experiment, Quant
from qexp.config.validation_errors import allowed_fields
from qexp.errors import ConfigError

GROUPS = options_of()


def problem(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        CommandLine(words).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_fields_are_those_of_an_experiment() -> None:
    assert {*FIELDS} == {*Experiment.model_fields} - {*GROUPS}


@pytest.mark.parametrize(
    ("word", "taken"),
    [
        ("quant=W8A8", "quant=w8a8"),
        ("quant=int8", "quant=w8a8"),
        ("quant=INT8", "quant=w8a8"),
        ("quant=W5A7", "quant=w5a7"),
        ("quant=FP32,W4A8", "quant=fp32,w4a8"),
        ("task=SST-2", "task=sst2"),
        ("task=squad-v2", "task=squad_v2"),
        ("method=PTQ", "method=ptq"),
        ("+recipe=Q8BERT", "+recipe=q8bert"),
        ("machine=cuda", "machine=gpu"),
        ("model=./mine", "model.name=./mine"),
        ("model=/models/a,/models/b", "model.name=/models/a,/models/b"),
        ("model=google/bert", "model.name=google/bert"),
        ("model=bert-base", "model=bert_base"),
        ("data=rows.csv", "data.path=rows.csv"),
        ("tags=baseline", "tags=[baseline]"),
        ("tags=a,b", "tags=[a,b]"),
        ("tracker=wandb,csv", "tracker=[wandb,csv]"),
        ("note=one, two: three", 'note="one, two: three"'),
    ],
)
def test_words_are_taken_for_what_they_mean(word: str, taken: str) -> None:
    assert meant(word, GROUPS) == taken
    assert meant(taken, GROUPS) == taken


@pytest.mark.parametrize(
    "word",
    ["quant=w8a8", "quant=w3", "model.name=./x", "tags=[a]", "recipe=aimet/w8a8_mrpc", "seed=1,2", "~x"],
)
def test_other_words_stay(word: str) -> None:
    assert meant(word, GROUPS) == word


def test_a_folder_of_the_name_is_a_checkpoint_unless_it_is_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "bert_base"):
        (tmp_path / name).mkdir()
    assert meant("model=mine", GROUPS) == "model.name=mine"
    assert meant("model=bert_base", GROUPS) == "model=bert_base"


def test_what_was_taken_for_what_is_said_and_a_note_is_no_such_word() -> None:
    line = CommandLine(["task=mrpc", "quant=int8", "note=hello", "tags=a"])
    assert line.all == ["task=mrpc", "quant=w8a8", 'note="hello"', "tags=[a]"]
    assert line.notes == ["quant=int8 is taken for quant=w8a8"]


def test_the_same_choice_in_two_spellings_is_given_twice() -> None:
    assert "quant is given twice" in problem("quant=int8", "quant=w8a8")
    assert "model.name is given twice" in problem("model=./a", "model.name=./b")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["modle=x"], ["modle=x", "did you mean model=x?"]),
        (["taks=mrpc"], ["did you mean task=mrpc?"]),
        (["+taks=mrpc"], ["did you mean +task=mrpc?"]),
        (["experiment=x"], ["recipe=x", "--config-name", "lightning-hydra-template"]),
        (["+experiment=x"], ["recipe=x", "lightning-hydra-template"]),
        (["logger=wandb"], ["tracker=wandb"]),
        (["trainer.max_epochs=1"], ["finetune.epochs=1"]),
        (["trainer.strategy=ddp"], ["finetune.…", "machine.…"]),
        (["ckpt_path=x"], ["model.name=x finetune=none"]),
        (["--learning_rate", "2e-5"], ["finetune.learning_rate=2e-5"]),
        (["--learning_rate=2e-5"], ["finetune.learning_rate=2e-5"]),
        (["--learning-rate", "2e-5"], ["finetune.learning_rate=2e-5"]),
        (["learning_rate=2e-5"], ["finetune.learning_rate=2e-5"]),
        (["--do_train", "task=mrpc"], ["finetune=full"]),
        (["num_train_epochs=3"], ["finetune.epochs=3", "Trainer"]),
        (["per_device_train_batch_size=8"], ["finetune.batch_size=8"]),
        (["benchmark=inference"], ["qexp bench RUN", "optimum-benchmark"]),
        (["backend=onnxruntime"], ["deploy=onnxruntime"]),
        (["launcher=process"], ["hydra/launcher="]),
        (["tracker.tags=[prod]"], ["tags=[prod]"]),
        (["tracker.project=mine"], ["tracker.wandb.project=mine"]),
        (["name=myrun"], ["tags=[myrun]"]),
        (["+notes=hello"], ["note=hello"]),
        (["task=mrpc", "--quant", "w8a8"], ["did you mean quant=w8a8?", "without dashes"]),
        (["--quant=w8a8"], ["did you mean quant=w8a8?"]),
        (["--task", "mrpc"], ["did you mean task=mrpc?"]),
        (["--deploy.runs=3"], ["did you mean deploy.runs=3?"]),
        (["--seed"], ["did you mean seed=…?"]),
        (["task=mrpc", "w4a8"], ["did you mean quant=w4a8?"]),
        (["task=mrpc", "q8bart"], ["did you mean", "=q8bert?"]),
        (["task=mrpc", "--multirn"], ["did you mean --multirun?"]),
        (["--config-dir", "/nowhere"], ["--config-dir /nowhere", "no such folder"]),
        (["zzz=1"], ["there are accept, "]),
    ],
    ids=str,
)
def test_words_that_nothing_knows_are_answered_with_the_right_one(words: list[str], parts: list[str]) -> None:
    message = problem(*words)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "words",
    [
        ["hydra.verbose=true", "hydra/launcher=joblib", "+hydra.launcher.x=1"],
        ["task=mrpc", "--multi", "--cfg", "job", "~recipe"],
        ["gate.rows=100", "calibration.samples=3", "tags=[a,b]", "note=null"],
    ],
)
def test_words_that_something_knows_pass(words: list[str]) -> None:
    CommandLine(words).check()


def test_a_group_of_ones_own_folder_passes(tmp_path: Path) -> None:
    (tmp_path / "experiment2").mkdir()
    (tmp_path / "experiment2" / "x.yaml").write_text("# @package _global_\nseed: 2\n")
    CommandLine(["--config-dir", str(tmp_path), "+experiment2=x"]).check()


def test_the_words_here_are_fields_that_exist() -> None:
    for name in FOREIGN:
        hint = foreign_word(name, "1")
        assert hint is not None
        for path in (part for part in hint.replace(",", " ").split() if "=" in part and "/" not in part):
            *parents, field = path.partition("=")[0].split(".")
            assert field in allowed_fields(parents) | {"recipe"}, (name, path)


def test_pairs_of_widths_are_those_of_the_schema() -> None:
    for bits in range(40):
        try:
            Quant(weight_bits=bits, activation_bits=bits)
        except ValidationError:
            assert width_problem(f"w{bits}a{bits}")
        else:
            assert not width_problem(f"W{bits}A{bits}")
    assert width_problem("w1a8") == "2 is the least width of weights"
    assert width_problem("w8a1") == "2 is the least width of activations"
    assert "16 is the greatest width of activations" in width_problem("w8a17")
    assert width_problem("fp8") == ""
