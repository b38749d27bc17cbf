"""Tests of distillation: losses against oracles, padding, batches in parts, and an unchanged teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from qexp.config import Distillation
from qexp.data.microbatches import BatchSplit
from qexp.errors import TrainingError
from qexp.models.distillation import (
    Teacher,
    attention_distance,
    divergence,
    hidden_distance,
    open_attention,
    similarity_distance,
)
from qexp.models.loading import arguments, logits_of, model_inputs
from qexp.tasks import adapter_for
from qexp.training.trainer import CHECKPOINT
from tests.conftest import experiment, tiny_config
from tests.support import sequence_models, tiny_models
from tests.support.tiny_training import batch_of, largest_difference, plan, trained

ALL = Distillation(labels=0.5, logits=1.0, temperature=3.0, hidden=2.0, attention=0.7)
TEXTS = adapter_for(experiment("task=mrpc").task)
QUESTIONS = adapter_for(experiment("task=squad").task)
TRANSLATIONS = adapter_for(experiment("task=translation", "model=transformer_tiny").task)
ENCODERS = (*tiny_models.CONFIGS, "mobilebert")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kl(ours: Tensor, theirs: Tensor) -> float:
    """By hand, in double precision, of logits [..., k]; a mean over what is before the last dimension."""
    sides = [np.exp(side.double().numpy()) for side in (ours, theirs)]
    student, teacher = (side / side.sum(-1, keepdims=True) for side in sides)
    return float((teacher * np.log(teacher / student)).sum(-1).mean())


def encoder(architecture: str, seed: int) -> Any:
    if architecture != "mobilebert":
        return tiny_models.build(architecture, attention="sdpa", seed=seed)
    torch.manual_seed(seed)
    config = tiny_config("mobilebert", 50, num_labels=3, classifier_dropout=0.0)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


def texts() -> dict[str, Tensor]:
    batch = tiny_models.batch()
    return {
        **batch,
        "token_type_ids": torch.zeros_like(batch["input_ids"]),
        "labels": torch.tensor([0, 2, 1]),
    }


def pairs() -> dict[str, Tensor]:
    batch = sequence_models.batch()
    labels = batch["decoder_input_ids"].masked_fill(batch["decoder_attention_mask"] == 0, -100)
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}


def loss_of(
    student: PreTrainedModel, teacher: PreTrainedModel, plan: Distillation, batch: Any, adapter: Any = TEXTS
) -> Tensor:
    """The whole loss of a batch; labels have no loss of their own."""
    open_attention(student, plan)
    of = Teacher(teacher, plan, adapter.distance, adapter.loss_counts_per_row)
    output = student(**arguments(student, model_inputs(student), batch), **of.asked)
    return of.loss(output, batch, lambda logits, _: logits.sum() * 0)


@given(
    rows=st.integers(1, 4), classes=st.integers(2, 5), temperature=st.floats(0.3, 8), seed=st.integers(0, 99)
)
def test_divergence_is_that_of_torch_and_of_the_definition(
    rows: int, classes: int, temperature: float, seed: int
) -> None:
    student, teacher = drawn(rows, classes, seed=seed) * 3, drawn(rows, classes, seed=seed + 1) * 3
    result = float(divergence(student, teacher, temperature).mean())
    oracle = functional.kl_div(
        (student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1), reduction="batchmean"
    )
    assert result == pytest.approx(temperature**2 * float(oracle), rel=1e-4, abs=1e-5)
    assert result == pytest.approx(
        temperature**2 * kl(student / temperature, teacher / temperature), rel=1e-4, abs=1e-5
    )


def test_at_a_high_temperature_the_gradient_is_that_of_centred_logits() -> None:
    """Hinton et al. 2015, equation 4: ``(z - v) / N`` of zero-mean logits, once multiplied by ``T^2``."""
    student, teacher = drawn(1, 5).double().requires_grad_(), drawn(1, 5, seed=1).double()
    divergence(student, teacher, 1e4).sum().backward()
    centred = (student - student.mean()) - (teacher - teacher.mean())
    assert student.grad is not None
    assert torch.allclose(student.grad, centred.detach() / 5, atol=1e-3)


def test_a_regression_compares_outputs_by_their_squared_error() -> None:
    stsb = adapter_for(experiment("task=stsb").task)
    student, teacher = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [0.0]])
    assert float(stsb.distance(student, teacher, {}, 5.0)) == 5.0


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_starts_and_ends_are_compared_over_the_tokens_of_a_window(temperature: float) -> None:
    student, teacher = drawn(2, 6, 2), drawn(2, 6, 2, seed=1)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    whole, part = (
        kl(student[row, :end].T / temperature, teacher[row, :end].T / temperature)
        for row, end in ((0, 6), (1, 4))
    )
    student[1, 4:] = 1e4  # whatever stands in padding
    student.requires_grad_()
    result = QUESTIONS.distance(student, teacher, {"attention_mask": mask}, temperature)
    result.backward()
    assert float(result.detach()) == pytest.approx(temperature**2 * (whole + part) / 2, rel=1e-4)
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert not student.grad[1, 4:].any()


def test_translations_are_compared_over_the_tokens_of_their_targets() -> None:
    student, teacher = drawn(2, 3, 4), drawn(2, 3, 4, seed=1)
    labels = torch.tensor([[5, 6, 2], [5, -100, -100]])
    kept = [(0, 0), (0, 1), (0, 2), (1, 0)]
    expected = kl(torch.stack([student[at] for at in kept]), torch.stack([teacher[at] for at in kept]))
    assert float(TRANSLATIONS.distance(student, teacher, {"labels": labels}, 1.0)) == pytest.approx(
        expected, rel=1e-5
    )
    assert TRANSLATIONS.loss_counts_per_row({"labels": labels}).tolist() == [3, 1]


def test_hidden_states_are_compared_by_their_squared_error() -> None:
    student, teacher = drawn(2, 3, 4), drawn(2, 3, 4, seed=1)
    counts = torch.tensor([[True] * 3, [True, False, False]])
    result = hidden_distance(student, teacher, counts)
    for row, length in enumerate((3, 1)):
        oracle = functional.mse_loss(student[row, :length], teacher[row, :length])
        assert float(result[row]) == pytest.approx(float(oracle), rel=1e-5)


def test_attention_is_compared_by_its_divergence() -> None:
    student, teacher = drawn(2, 2, 3, 3), drawn(2, 2, 3, 3, seed=1)
    counts = torch.tensor([[True] * 3, [True, True, False]])
    result = attention_distance(student.softmax(-1), teacher.softmax(-1), counts)
    for row, length in enumerate((3, 2)):
        assert float(result[row]) == pytest.approx(
            kl(student[row, :, :length], teacher[row, :, :length]), rel=1e-4
        )


def test_similarities_are_compared_by_the_divergence_of_their_distributions() -> None:
    """Each text has a softmax over the others of its batch, not over itself."""
    student, teacher = (functional.normalize(drawn(4, 8, seed=seed), dim=-1) for seed in (0, 1))
    others = [[column for column in range(4) if column != row] for row in range(4)]
    rows = [[side[row] @ side[others[row]].T / 0.1 for row in range(4)] for side in (student, teacher)]
    expected = kl(torch.stack(rows[0]), torch.stack(rows[1]))
    assert float(similarity_distance(student, teacher, 0.1)) == pytest.approx(expected, rel=1e-4)


def test_similarities_of_a_teacher_or_of_one_text_leave_nothing_to_learn() -> None:
    vectors = functional.normalize(drawn(3, 8), dim=-1).requires_grad_()
    assert float(similarity_distance(vectors, vectors.detach(), 0.05).detach()) == pytest.approx(0, abs=1e-6)
    alone = similarity_distance(vectors[:1], vectors[:1].detach() + 1, 0.05)
    alone.backward()
    assert float(alone.detach()) == 0
    assert vectors.grad is not None and not vectors.grad.any()


def test_probabilities_of_zero_have_a_finite_divergence() -> None:
    student = torch.tensor([[[[1.0, 0.0, 0.0]]]], requires_grad=True)
    teacher = torch.tensor([[[[0.5, 0.5, 0.0]]]])
    result = attention_distance(student, teacher, torch.tensor([[True]]))
    result.sum().backward()
    assert 1 < float(result.detach()) < np.inf
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("architecture", ENCODERS)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(architecture: str) -> None:
    student = encoder(architecture, 0)
    plan = ALL.model_copy(update={"labels": 0.0})
    loss = loss_of(student, encoder(architecture, 0), plan, texts())
    loss.backward()
    assert abs(float(loss.detach())) < 1e-5
    gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    assert gradients and max(float(gradient.abs().max()) for gradient in gradients) < 1e-4


@pytest.mark.parametrize("architecture", ENCODERS)
@pytest.mark.parametrize("name", ["logits", "hidden", "attention"])
def test_every_loss_reaches_every_encoder_and_padding_does_not_count(architecture: str, name: str) -> None:
    plan = Distillation(labels=0.0, **{name: 1.0})  # type: ignore[arg-type]
    student, batch = encoder(architecture, 0), texts()
    loss = loss_of(student, encoder(architecture, 1), plan, batch)
    loss.backward()
    assert float(loss.detach()) > 0
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in student.parameters())
    wider = {
        key: functional.pad(batch[key], (0, 3)) for key in ("input_ids", "attention_mask", "token_type_ids")
    }
    other = loss_of(encoder(architecture, 0), encoder(architecture, 1), plan, {**batch, **wider})
    assert float(other.detach()) == pytest.approx(float(loss.detach()), rel=1e-4)


@pytest.mark.parametrize("architecture", sequence_models.MODELS)
def test_encoder_decoder_and_cross_attention_are_compared(architecture: str) -> None:
    batch = pairs()
    student, teacher = (sequence_models.build(architecture, seed=seed) for seed in (0, 1))
    result = float(loss_of(student, teacher, ALL, batch, TRANSLATIONS).detach())
    expected = ALL.logits * _oracle_of_logits(student, teacher, batch)
    expected += _oracle_of_layers(student, teacher, batch)
    assert result == pytest.approx(expected, rel=1e-3)


def _outputs(model: Any, batch: dict[str, Tensor]) -> Any:
    with torch.no_grad():
        return model(
            **arguments(model, model_inputs(model), batch), output_hidden_states=True, output_attentions=True
        )


def _oracle_of_logits(student: Any, teacher: Any, batch: dict[str, Tensor]) -> float:
    ours, theirs = (logits_of(_outputs(model, batch)) for model in (student, teacher))
    kept = batch["labels"] != -100
    return 9 * kl(ours[kept] / 3, theirs[kept] / 3)


def _oracle_of_layers(student: Any, teacher: Any, batch: dict[str, Tensor]) -> float:
    """Row by row, without masks: what is padded is cut off."""
    ours, theirs = _outputs(student, batch), _outputs(teacher, batch)
    source, target = batch["attention_mask"].sum(1), (batch["labels"] != -100).sum(1)
    hidden, attention = [], []
    for row, loss_count in enumerate(target.tolist()):
        ends = {"encoder": int(source[row]), "decoder": int(target[row]), "cross": int(target[row])}
        errors = [
            functional.mse_loss(one[row, :end], other[row, :end])
            for side, end in list(ends.items())[:2]
            for one, other in zip(ours[f"{side}_hidden_states"], theirs[f"{side}_hidden_states"], strict=True)
        ]
        apart = [
            functional.kl_div(one[row, :, :end].clamp_min(1e-30).log(), other[row, :, :end], reduction="none")
            .sum(-1)
            .mean()
            for side, end in ends.items()
            for one, other in zip(ours[f"{side}_attentions"], theirs[f"{side}_attentions"], strict=True)
        ]
        hidden.append(loss_count * float(torch.stack(errors).mean()))
        attention.append(loss_count * float(torch.stack(apart).mean()))
    total = float(target.sum())
    return (ALL.hidden * sum(hidden) + ALL.attention * sum(attention)) / total


def test_attention_is_compared_before_dropout_and_quantizers() -> None:
    teacher, plan = encoder("bert", 0), Distillation(labels=0.0, attention=1.0)
    student = encoder("bert", 0)
    student.bert.encoder.layer[1].attention.self.dropout.p = 0.5
    student.train()
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout) and module.p != 0.5:
            module.p = 0.0
    assert float(loss_of(student, teacher, plan, texts()).detach()) < 1e-6


def test_a_model_without_attention_probabilities_is_refused() -> None:
    student, teacher = encoder("bert", 0), encoder("bert", 1)
    plan = Distillation(attention=0.5)
    of = Teacher(teacher, plan, TEXTS.distance, TEXTS.loss_counts_per_row)
    for model in (student, teacher):
        model.set_attn_implementation("sdpa")
    output = student(**tiny_models.batch(), **of.asked)
    with pytest.raises(TrainingError, match=r"attention=0.5: BertFor.* gives none of attentions, .*=0$"):
        of.loss(output, texts(), lambda logits, _: logits.sum())


def test_losses_are_float32_in_mixed_precision() -> None:
    student, teacher = encoder("bert", 0), encoder("bert", 1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(student, teacher, ALL, texts())
    exact = loss_of(student, teacher, ALL, texts())
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.1)


@pytest.mark.parametrize("mode", ["float", "learned"])
def test_the_teacher_is_no_part_of_the_student_and_stays_as_it_was(mode: str, tmp_path: Path) -> None:
    asked = plan(tmp_path / "taught", mode=mode, distillation=ALL)
    plain = plan(tmp_path / "plain", mode=mode)
    module, alone = (each.module(6, BatchSplit()) for each in (asked, plain))
    assert module.state_dict().keys() == alone.state_dict().keys()
    assert sum(1 for _ in module.parameters()) == sum(1 for _ in alone.parameters())
    assert module.teacher is not None
    teacher = module.teacher.model
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    batch = batch_of(np.arange(4))
    module.training_step({**batch, "share": torch.tensor(1.0)}, 0).backward()
    module.train()
    assert not teacher.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_batch_in_parts_takes_the_step_of_the_whole_batch(accumulate: int, tmp_path: Path) -> None:
    """The last batch has 3 rows: with 4 parts, one of them has none."""
    whole, expected = trained(plan(tmp_path / "whole", last=3, distillation=ALL))
    split, result = trained(plan(tmp_path / "split", last=3, distillation=ALL, accumulate=accumulate))
    assert split["loss"] == pytest.approx(whole["loss"], abs=1e-4)
    assert largest_difference(expected, result) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    "losses",
    [ALL, pytest.param(Distillation(labels=0.0, hidden=1.0), marks=pytest.mark.exhaustive)],
    ids=["all", "hidden"],
)
def test_two_processes_take_the_steps_of_one(losses: Distillation, tmp_path: Path) -> None:
    whole, expected = trained(plan(tmp_path / "whole", last=3, distillation=losses))
    split, result = trained(plan(tmp_path / "split", last=3, distillation=losses, devices=2))
    assert split["loss"] == pytest.approx(whole["loss"], abs=1e-4)
    assert largest_difference(expected, result) < 1e-5


def test_parts_of_translations_weigh_by_their_tokens() -> None:
    batch = pairs()
    student, teacher = (sequence_models.build("marian", seed=seed) for seed in (0, 1))
    whole = float(loss_of(student, teacher, ALL, batch, TRANSLATIONS).detach())
    loss_count = TRANSLATIONS.loss_counts_per_row(batch)
    parts = [{name: value[rows] for name, value in batch.items()} for rows in (slice(0, 1), slice(1, 3))]
    losses = [float(loss_of(student, teacher, ALL, part, TRANSLATIONS).detach()) for part in parts]
    shares = [float(loss_count[0] / loss_count.sum()), float(loss_count[1:].sum() / loss_count.sum())]
    assert sum(loss * share for loss, share in zip(losses, shares, strict=True)) == pytest.approx(
        whole, rel=1e-4
    )


def test_a_resumed_distillation_is_bit_identical_to_an_uninterrupted_one(tmp_path: Path) -> None:
    fields = {"mode": "learned", "dropout": True, "distillation": ALL}
    whole, expected = trained(plan(tmp_path / "whole", **fields))
    with pytest.raises(RuntimeError, match="no luck"):
        trained(plan(tmp_path / "cut", **fields, trouble=("raise", 0, 4)), seconds=0)
    size = (tmp_path / "cut" / CHECKPOINT).stat().st_size
    facts, result = trained(plan(tmp_path / "cut", **fields))
    assert facts["resumed_at"] == 4
    assert facts["loss"] == whole["loss"]
    assert all(torch.equal(expected[name], result[name]) for name in expected)
    plain = plan(tmp_path / "plain", mode="learned", dropout=True, trouble=("raise", 0, 4))
    with pytest.raises(RuntimeError, match="no luck"):
        trained(plain, seconds=0)
    assert size == pytest.approx((tmp_path / "plain" / CHECKPOINT).stat().st_size, abs=4096)


def test_a_student_comes_nearer_to_its_teacher(tmp_path: Path) -> None:
    distillation = Distillation(labels=0.0, logits=1.0, hidden=1.0)
    facts, _ = trained(plan(tmp_path, count=40, rate=3e-3, distillation=distillation))
    assert np.mean(facts["loss"][-5:]) < 0.5 * np.mean(facts["loss"][:5])
