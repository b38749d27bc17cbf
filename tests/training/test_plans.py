"""Tests of continued training: the control takes the steps of QAT without quantizers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from qexp.artifacts.types import ModelArtifact, Ranges, Tokens
from qexp.config import Control, Experiment, Numerics, Qat
from qexp.data.microbatches import BatchSplit
from qexp.models.loading import load_saved
from qexp.records.record import read
from qexp.training.plans import ControlPlan, QatPlan
from qexp.training.trainer import WorkerContext, fit
from tests.conftest import experiment
from tests.support.jobs import QUICK, run

WORDS = ("task=mrpc", "deploy=none", "placement=linear", *QUICK[:-1])
KINDS = ([], ["logits"], ["logits", "hidden", "attention"])


@dataclass(frozen=True)
class Made:
    """What a run left for trainings to go on from."""

    tokens: Tokens
    encoder: ModelArtifact
    ranges: Ranges


@pytest.fixture
def made(tiny_bert: Path, outputs: Path) -> Made:
    run(*WORDS, "method=ptq", f"model.name={tiny_bert}")
    (record,) = (outputs / "records").glob("*.json")
    result = {
        visit["stage"]: (outputs / "artifacts" / visit["stage"] / visit["key"], visit["key"])
        for visit in read(record).stages
    }
    return Made(Tokens(*result["1-tokens"]), ModelArtifact(*result["2-fp32"]), Ranges(*result["4-ranges"]))


def asked(method: str, learned: Sequence[str]) -> Experiment:
    quant = ["quant=fp32"] if method == "control" else []
    weights = (f"method.distillation.{name}=1" for name in learned)
    return experiment(*WORDS, f"method={method}", *quant, *weights)


def control(made: Made, learned: Sequence[str]) -> ControlPlan:
    of = asked("control", learned)
    assert isinstance(of.method, Control)
    given = (made.tokens, made.encoder, of.task, of.method, of.finetune, of.training_setup)
    return ControlPlan(*given, made.encoder)


def aware(made: Made, learned: Sequence[str]) -> QatPlan:
    of = asked("qat", learned)
    assert isinstance(of.method, Qat)
    given = (made.tokens, made.encoder, of.task, of.method, of.finetune, of.training_setup)
    return QatPlan(*given, made.encoder, made.ranges, of.quant_config)


def taken(plan: ControlPlan, folder: Path) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and weights, with all quantizers off where there are any."""
    steps = plan.steps(BatchSplit())
    module = plan.module(steps.count, BatchSplit())
    if module.quantization is not None:
        module.quantization.off()
    worker = WorkerContext(Numerics(), folder, 1e9, threads=1)
    losses = fit(module, steps, plan.title, worker, lambda *_, **__: None)
    folder.mkdir(exist_ok=True)
    plan.save(module, folder)
    return losses, load_saved(ModelArtifact(folder, "").model).state_dict()


@pytest.mark.parametrize("learned", KINDS, ids=lambda names: " ".join(names) or "labels")
def test_the_control_is_quantization_aware_training_without_quantizers(
    learned: list[str], made: Made, tmp_path: Path
) -> None:
    losses, weights = taken(control(made, learned), tmp_path / "control")
    same_losses, same_weights = taken(aware(made, learned), tmp_path / "qat")
    assert losses == same_losses
    assert weights.keys() == same_weights.keys()
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    before = load_saved(made.encoder.model).state_dict()
    assert any(not torch.equal(before[name], weights[name]) for name in before), "nothing was learned"


def test_what_is_saved_of_a_control_tells_nothing_of_how_it_was_trained(made: Made, tmp_path: Path) -> None:
    taken(control(made, KINDS[-1]), tmp_path)
    configs = (made.encoder.model / "config.json", ModelArtifact(tmp_path, "").model / "config.json")
    first, second = (file.read_text(encoding="utf-8") for file in configs)
    assert first == second
