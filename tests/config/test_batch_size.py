"""Tests of sizes of batches, in rows or tokens, and of which weights of a training are kept."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from qexp.config import BatchSize, BeamSearch, Finetune, Qat, TranslationTask
from qexp.config.validation_errors import explain
from tests.conftest import experiment

TINY = ("task=translation", "model=transformer_tiny")


def _training(*words: str) -> Finetune:
    made = experiment(*words).finetune
    assert isinstance(made, Finetune)
    return made


def _problem(*words: str) -> str:
    with pytest.raises(ValidationError) as caught:
        experiment("task=mrpc", *words)
    return explain(caught.value)


def test_keys_of_runs_without_the_new_settings_are_as_before() -> None:
    made = experiment("task=mrpc")
    assert set(made.finetune.model_dump()) == {
        "kind", "learning_rate", "epochs", "batch_size", "weight_decay", "warmup", "schedule", "beta2",
    }  # fmt: skip
    assert "batch_tokens" not in made.method.model_dump()
    assert "batch_tokens" not in experiment("task=stsb_embedding").finetune.model_dump()


def test_tokens_take_the_place_of_rows_wherever_these_are_from() -> None:
    assert BatchSize.of(_training(*TINY)) == BatchSize(64)
    tokens = _training(*TINY, "finetune.batch_tokens=4096")
    assert BatchSize.of(tokens).tokens == 4096
    assert Finetune.model_validate(tokens.model_dump()) == tokens


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), BatchSize(32)),
        (("finetune.batch_tokens=4096",), BatchSize(32, 4096)),
        (("finetune.batch_tokens=4096", "method.batch_size=8"), BatchSize(8, None, "method")),
        (("method.batch_tokens=2048",), BatchSize(32, 2048, "method")),
    ],
)
def test_a_training_that_follows_has_its_own_batches_or_those_of_fine_tuning(
    words: tuple[str, ...], expected: BatchSize
) -> None:
    made = experiment("task=mrpc", *words)
    assert isinstance(made.method, Qat)
    assert BatchSize.continuing(made.method, made.finetune) == expected


def test_an_embedding_learns_from_batches_of_tokens() -> None:
    made = experiment("task=stsb_embedding", "finetune.batch_tokens=1024")
    assert isinstance(made.method, Qat)
    assert BatchSize.continuing(made.method, made.finetune).tokens == 1024


def test_rows_of_a_batch_of_tokens_are_estimated() -> None:
    assert BatchSize(32).mean_rows(20.0) == 32
    assert BatchSize(32, 4096).mean_rows(32.0) == 128
    assert BatchSize(32, 16).mean_rows(32.0) == 1


def test_rows_that_choose_weights_are_held_out_where_a_setting_needs_them() -> None:
    assert _training("task=mrpc").holdout is None
    assert _training("task=mrpc", "finetune.patience=3").holdout == 0.05
    assert _training("task=mrpc", "finetune.patience=3", "finetune.holdout=200").holdout == 200
    assert _training("task=mrpc", "finetune.average=4", "finetune.average_of=best").holdout == 0.05
    assert _training("task=mrpc", "finetune.average=4").holdout is None


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["finetune.batch_tokens=64"], ["batch_tokens=64 with task.max_length=128", "=128 or more"]),
        (["method.batch_tokens=64"], ["method.batch_tokens=64 with task.max_length=128"]),
        (["finetune.batch_tokens=512", "finetune.batch_size=8"], ["batch_size=8 with batch_tokens=512"]),
        (["method.batch_tokens=512", "method.batch_size=8"], ["batch_size=8 with batch_tokens=512"]),
        (["finetune.average_of=best"], ["average_of=best with average=null", "finetune.average=5"]),
        (["finetune.evaluate_steps=9"], ["evaluate_steps=9 with holdout=null and average=null"]),
        (["finetune.holdout=2.5"], ["holdout=2.5: allowed is a share below 1"]),
        (["finetune.patience=0"], ["patience"]),
        (["finetune=none", "finetune.batch_tokens=512", "finetune.batch_size=8"], ["batch_size=8 with"]),
    ],
    ids=" ".join,
)
def test_what_goes_unread_or_cannot_be_is_refused(words: list[str], parts: list[str]) -> None:
    told = _problem(*words)
    for part in parts:
        assert part in told


def test_a_holdout_that_is_needed_is_asked_for() -> None:
    with pytest.raises(ValidationError, match=r"patience=2 with holdout=null.*finetune.holdout=0.05"):
        Finetune(learning_rate=1e-3, epochs=1, patience=2)


def test_multi30k_is_trained_and_scored_as_published() -> None:
    """One word on the command line; NeurST's variant goes on from the same model."""
    made, neurst = (experiment(f"recipe=multi30k/{name}") for name in ("published", "neurst"))
    training, task, model = made.finetune, made.task, made.model
    assert isinstance(training, Finetune) and isinstance(task, TranslationTask) and model.scratch is not None
    assert (training.batch_tokens, training.learning_rate, training.warmup_steps) == (2 * 4096, 5e-3, 2000)
    assert (training.schedule, training.beta2, training.weight_decay) == ("inverse_sqrt", 0.98, 0)
    assert (training.max_steps, training.average, training.average_of) == (8000, 10, "last")
    assert (model.scratch.layers, model.scratch.width, model.scratch.inner, model.scratch.heads) == (
        4,
        128,
        256,
        4,
    )
    assert (model.scratch.dropout, task.label_smoothing) == (0.3, 0.1)
    assert (task.search.beams, task.search.length_penalty) == (5, 1)
    assert task.metrics == ("bleu", "tokenized_bleu_lc")
    assert made.method.kind == "none"
    for part in ("finetune", "model", "task", "training_setup"):
        assert getattr(made, part) == getattr(neurst, part)
    assert isinstance(neurst.method, Qat) and neurst.method.schedule == "continued"
    assert (neurst.placement.name, neurst.calibrator.kind) == ("neurst", "clip")


def test_scores_of_a_translation_are_no_reason_to_train_again() -> None:
    plain = experiment(*TINY).task
    other = experiment(*TINY, "task.bleu_tokenize=char", "task.metrics=[tokenized_bleu_lc,bleu]").task
    assert (
        other.without_decoding == plain.without_decoding == plain.model_copy(update={"search": BeamSearch()})
    )
    assert set(plain.model_dump()) == {
        "kind", "name", "metrics", "max_length", "train", "evaluation", "source", "target", "prefix",
        "label_smoothing", "search",
    }  # fmt: skip
