"""Commands that repeat a Record: each composes to the identical experiment."""

from __future__ import annotations

import shlex

import pytest

from qexp.cli import run as cli
from qexp.config import Experiment
from qexp.reporting.command import command_of
from qexp.reporting.run_view import RunView
from tests.conftest import compose, experiment
from tests.support.record_factory import record


@pytest.mark.parametrize(
    "words",
    [
        ("task=mrpc",),
        ("task=rte", "quant=fp32", "deploy=none"),
        (
            "task=stsb",
            "quant.weight_bits=5",
            "quant.activation_bits=7",
            "method=ptq",
            "calibrator=percentile",
            "placement=linear",
        ),
        ("task=mnli", "model=bert_tiny", "scheme=per_tensor", "budget=smoke", "seed=7"),
        ("task=cola", "recipe=qdqbert", "machine=gpu", "machine.precision=bf16", "deploy=onnx"),
        ("task=qqp", "finetune=none", r"model.name='/some where/it\'s, a=model'", "calibrator.weights=max"),
        ("task=sst2", "task.max_length=32", "data=sample", "data.train_rows=100", "budget.train_steps=5"),
        (
            "task=qnli",
            "placement.exclude=['*classifier*','a.b']",
            "calibration.samples=64",
            "method.epochs=0.5",
        ),
        ("task=translation", "model=transformer_tiny", "task.search.beams=1", "quant=w4a8"),
        ("task=mrpc", "method.dropout=null", "calibrator=entropy", "deploy.batch_sizes=[1,8]"),
        (
            "task=cola",
            "recipe=bondarenko_peg",
            "quant.embedding_bits=4",
        ),
        (
            "task=cola",
            "quant=w4a8",
            "quant.overrides={*.pooler.*:{activation_bits:16},@last:{weight_bits:8}}",
        ),
        ("task=stsb", "deploy=cpu", "deploy.lengths=[64,384]", "deploy.real=true"),
        ("task=squad_v2", "task.search.null_threshold=-2.5", "data.train_rows=8000", "recipe=neurst"),
        (
            "task=classification",
            "data.path='my rows.csv'",
            "data.text=[a,b]",
            "data.label=c",
            "task.labels=[x,y]",
        ),
        ("task=regression", "data.path=rows.csv", "data.columns={id:null}", "data.split_seed=3"),
        ("task=translation", "data.path=rows.tsv", "data.text=a", "model=transformer_tiny"),
    ],
    ids=" ".join,
)
def test_the_words_mean_the_same_experiment(words: tuple[str, ...]) -> None:
    before = experiment(*words)
    run = RunView(
        record(before.model_dump(mode="json"), source="sample" if "data=sample" in words else "local")
    )
    assert run.quant == before.quant.name
    python, dash, module, *again = shlex.split(command_of(run))
    assert (python, dash, module) == ("python", "-m", "qexp")
    cli._offer_widths(again)  # what the command line does with quant=w5a7
    after = Experiment.model_validate(compose(*again))
    left_open = {"data": {"source"}, "machine": {"threads", "checkpoint_seconds", "progress"}}
    assert after.model_dump(exclude=left_open) == before.model_dump(exclude=left_open)
    assert len(again) < 40


def test_what_the_options_say_is_not_repeated() -> None:
    tree = experiment("task=mrpc", "method=ptq", "deploy=none").model_dump(mode="json")
    words = shlex.split(command_of(RunView(record(tree))))
    assert "quant=w8a8" in words
    assert "method=ptq" in words
    assert not [word for word in words if word.startswith(("calibration", "scheme", "budget.", "placement."))]


def test_a_record_repeats_what_was_typed_but_for_where_results_go() -> None:
    typed = [
        "task=mrpc",
        "quant=w5a7",
        "tracker=wandb",
        "tracker.wandb.project=mine",
        "++machine.threads=2",
        "seed=3",
    ]
    before = experiment("task=mrpc", "quant=w8a8")
    run = RunView(record(before.model_dump(mode="json"), overrides=typed, labels=before.labels))
    assert command_of(run) == "python -m qexp task=mrpc quant=w5a7 seed=3"
    assert (run.quant, run.metrics) == (before.quant.name, ("accuracy", "f1"))
