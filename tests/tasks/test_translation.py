"""Tests of translation: training, beam search and scoring."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from qexp.artifacts.types import Tokens
from qexp.config import BeamSearch, FromScratch, MaxCalibrator, Placement, QuantizationConfig, TranslationTask
from qexp.data.checkpoints import Checkpoint
from qexp.data.tokenization.pairs import IGNORED
from qexp.errors import ConfigError, ModelError
from qexp.models.loading import arguments, load_saved, logits_of, model_inputs, save, set_dropout
from qexp.quant.insertion.insert import insert
from qexp.quant.insertion.quantized_model import QuantizedModel
from qexp.tasks.module import Optimization
from qexp.tasks.teacher_forcing import Translator
from qexp.tasks.translation import TranslationAdapter, Vocabulary, from_scratch, scores, writer
from qexp.training.distributed import train
from qexp.training.holdout import Holdout
from tests.conftest import experiment
from tests.support.sequence_models import MODELS, build
from tests.support.sequence_models import batch as sequence_batch
from tests.support.tiny_training import largest_difference
from tests.support.translators import WORDS, plan, prepared, runtime

SCRATCH = FromScratch(vocabulary=400, layers=2, width=32, heads=4, inner=64, dropout=0.1)
PLAN = Optimization(1e-3, 0.0, 0.1, 10, 0)


def task_of(*words: str) -> TranslationTask:
    task = experiment(*WORDS, *words).task
    assert isinstance(task, TranslationTask)
    return task


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    return prepared(tmp_path_factory.mktemp("rows") / "tokens")


@pytest.fixture
def model(tokens: Tokens) -> Any:
    return scratch_model(tokens)


def scratch_model(tokens: Tokens, seed: int = 1) -> Any:
    from transformers import AutoTokenizer

    vocabulary = Vocabulary.of(AutoTokenizer.from_pretrained(tokens.tokenizer))
    return from_scratch(SCRATCH, vocabulary, seed).eval()


def batch_of(tokens: Tokens, rows: Any = (0, 5, 7)) -> dict[str, torch.Tensor]:
    adapter = TranslationAdapter(task_of())
    return adapter.collate(adapter.split(tokens.split("train")), np.array(rows), tokens.pad_id)


# The model


def test_a_model_from_scratch_is_drawn_from_the_seed_and_tied(tokens: Tokens) -> None:
    first, again, other = (scratch_model(tokens, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    made = scratch_model(tokens)
    shared = made.model.shared.weight
    assert made.lm_head.weight is shared
    assert made.model.encoder.embed_tokens.weight is made.model.decoder.embed_tokens.weight is shared
    assert made.config.d_model == 32 and len(made.model.encoder.layers) == len(made.model.decoder.layers) == 2
    assert float(shared[3:].detach().std()) == pytest.approx(32**-0.5, rel=0.1)


def test_projections_are_drawn_as_those_of_torch_transformer(tokens: Tokens) -> None:
    made = scratch_model(tokens)
    torch.manual_seed(1)
    other = torch.nn.Transformer(32, 4, 2, 2, 64, batch_first=True)
    ours, theirs = made.model.decoder.layers[0], other.decoder.layers[0]
    attention = theirs.multihead_attn
    parts = torch.cat([ours.encoder_attn.q_proj.weight, ours.encoder_attn.k_proj.weight])
    for drawn, weight in (
        (parts, attention.in_proj_weight), (ours.encoder_attn.out_proj.weight, attention.out_proj.weight),
        (ours.fc1.weight, theirs.linear1.weight), (ours.fc2.weight, theirs.linear2.weight),
    ):  # fmt: skip
        assert float(drawn.detach().std()) == pytest.approx(float(weight.detach().std()), rel=0.1)
        assert float(drawn.detach().abs().max()) == pytest.approx(
            float(weight.detach().abs().max()), rel=0.02
        )
    assert not any(bias.any() for name, bias in made.named_parameters() if name.endswith("proj.bias"))


def test_a_saved_model_computes_the_same_and_stays_tied(model: Any, tokens: Tokens, tmp_path: Path) -> None:
    save(model, tmp_path)
    loaded: Any = load_saved(tmp_path)
    batch = batch_of(tokens)
    given = arguments(model, model_inputs(model), batch)
    assert torch.equal(model(**given).logits, loaded(**given).logits)
    assert loaded.lm_head.weight is loaded.model.shared.weight
    assert loaded.generation_config.decoder_start_token_id == 1


def test_dropout_can_be_set_in_models_that_keep_it_as_a_number(model: Any, tokens: Tokens) -> None:
    given = arguments(model, model_inputs(model), batch_of(tokens))
    still = model(**given).logits
    model.train()
    assert not torch.equal(model(**given).logits, still)
    set_dropout(model, 0.0)
    torch.testing.assert_close(model(**given).logits, still, atol=1e-5, rtol=1e-4)


def test_the_decoder_sees_the_words_before_the_one_it_predicts(model: Any, tokens: Tokens) -> None:
    batch = batch_of(tokens)
    given = arguments(model, model_inputs(model), batch)
    labels, shifted = batch["labels"], given["decoder_input_ids"]
    assert set(given) == {"use_cache", "input_ids", "attention_mask", "decoder_input_ids"}
    assert shifted[:, 0].tolist() == [1] * 3
    inside = labels[:, :-1] != IGNORED
    assert torch.equal(shifted[:, 1:][inside], labels[:, :-1][inside])
    before = model(**given).logits
    changed = {**batch, "labels": labels.clone()}
    changed["labels"][:, 4:] = 9
    after = model(**arguments(model, model_inputs(model), changed)).logits
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_a_checkpoint_with_a_weight_missing_is_refused(tokens: Tokens, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save(build("bart"), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.decoder.layers.0.fc1.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    adapter = TranslationAdapter(task_of())
    with pytest.raises(ModelError, match=r"lacks 1 weights.*decoder\.layers\.0\.fc1"):
        adapter.pretrained(Checkpoint(tmp_path, "", "bart"), tokens, 0)
    with pytest.raises(ModelError, match=r"fc1\.weight is missing"):
        adapter.finetuned(Checkpoint(tmp_path, "", "bart"))


# The loss


def calibrated(model: Any, batch: dict[str, torch.Tensor]) -> QuantizedModel:
    """Quantize the operands of all products, with the ranges of one batch."""
    sites = ("linear.weight", "linear.input", "matmul.query", "matmul.key", "matmul.probs", "matmul.value")
    placement = Placement.model_validate({"name": "gemm", "sites": sites})
    quantization = insert(model, QuantizationConfig(placement=placement))
    masks = (batch["attention_mask"], batch.get("target_mask", batch.get("decoder_attention_mask")))
    with torch.no_grad(), quantization.observing(*masks):
        logits_of(model(**arguments(model, model_inputs(model), batch)))
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.freeze()
    return quantization


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_loss_is_a_mean_over_the_tokens_of_the_targets(model: Any, tokens: Tokens, smoothing: float) -> None:
    batch = batch_of(tokens)
    module = Translator(model, PLAN, label_smoothing=smoothing)
    logits = module(batch).detach()
    wanted, count = 0.0, 0
    for row, labels in zip(logits.log_softmax(-1), batch["labels"], strict=True):
        for place, label in enumerate(labels.tolist()):
            if label != IGNORED:
                wanted -= float((1 - smoothing) * row[place, label] + smoothing * row[place].mean())
                count += 1
    adapter = TranslationAdapter(task_of())
    assert count == adapter.loss_count(adapter.split(tokens.split("train")), np.array([0, 5, 7]))
    assert float(module.loss(logits, batch)) == pytest.approx(wanted / count, rel=1e-5)
    whole = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)
    inside = batch["labels"] != IGNORED
    oracle = whole(logits[inside], batch["labels"][inside])
    assert float(module.loss(logits, batch)) == pytest.approx(float(oracle), rel=1e-6)


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("quantized", [False, True])
def test_the_loss_of_a_step_is_that_of_the_logits(architecture: str, quantized: bool) -> None:
    """Without logits of padding, some tokens at a time, and with the gradients of torch's cross entropy."""
    given = sequence_batch()
    labels = given["decoder_input_ids"].masked_fill(given["decoder_attention_mask"] == 0, IGNORED)
    batch = {**given, "labels": labels, "share": torch.tensor(0.5)}
    model = build(architecture).train()
    if architecture == "marian":
        model.final_logits_bias.copy_(torch.linspace(-1, 1, 50)[None])
    set_dropout(model, 0.0)
    quantization = calibrated(model, batch) if quantized else None
    module = Translator(model, PLAN, quantization, label_smoothing=0.2)
    found = module.training_step(batch, 0)
    logits = logits_of(model(**arguments(model, model_inputs(model), batch)))
    wanted = 0.5 * module.loss(logits, batch)
    torch.testing.assert_close(found, wanted)
    parameters = [each for each in model.parameters() if each.requires_grad]
    pairs = zip(*(torch.autograd.grad(each, parameters) for each in (found, wanted)), strict=True)
    for mine, torchs in pairs:
        torch.testing.assert_close(mine, torchs, rtol=1e-4, atol=1e-6)


def test_a_quantizer_behind_the_logits_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("marian")
    monkeypatch.setattr("qexp.tasks.teacher_forcing.LinearCrossEntropy", None)
    batch = {**sequence_batch(), "share": torch.tensor(1.0)}
    batch["labels"] = batch["decoder_input_ids"]
    handle = model.lm_head.register_forward_hook(lambda *_: _[2] * 0)
    loss = Translator(model, PLAN).training_step(batch, 0)
    assert float(loss.detach()) == pytest.approx(math.log(50))
    handle.remove()
    with pytest.raises(AttributeError):  # the faster way is taken again
        Translator(model, PLAN).training_step(batch, 0)


def test_the_task_says_how_smooth_the_labels_are(model: Any) -> None:
    made = TranslationAdapter(task_of("task.label_smoothing=0.25")).training_module(model, PLAN)
    assert isinstance(made, Translator) and made.label_smoothing == 0.25


def test_held_out_rows_are_scored_by_the_likelihood_of_a_target_token(model: Any, tokens: Tokens) -> None:
    """Whatever the label smoothing, and over all tokens, however rows are batched."""
    rows = np.arange(3, 90)
    holdout = Holdout(tokens, task_of("task.label_smoothing=0.3"), rows)
    found = holdout.score(Translator(model, PLAN, label_smoothing=0.3), tokens.folder)
    batch = batch_of(tokens, rows)
    logits = model.eval()(**arguments(model, model_inputs(model), batch)).logits
    oracle = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    assert found == pytest.approx(float(oracle.detach()), rel=1e-5)
    assert (holdout.score_name, holdout.higher_is_better) == ("loss", False)


# Training


def trained(tokens: Tokens, folder: Path, **fields: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Facts and weights of a training."""
    folder.mkdir(exist_ok=True)
    facts = train(plan(tokens, **fields), folder, folder, runtime(folder))
    return dict(facts), load_file(folder / "model" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("numerics", [{"accumulate": 3}, {"devices": 2, "batch_tokens": 600}], ids=str)
def test_a_batch_in_parts_takes_the_step_of_the_whole_batch(
    numerics: dict[str, int], tokens: Tokens, tmp_path: Path
) -> None:
    """Parts have different numbers of tokens, and the mean is over the tokens of all."""
    size = {"batch_tokens": numerics.get("batch_tokens")}
    whole, expected = trained(tokens, tmp_path / "whole", dropout=0.0, **size)
    parts, result = trained(tokens, tmp_path / "parts", dropout=0.0, **numerics)
    assert parts["loss"] == pytest.approx(whole["loss"], abs=1e-4)
    # A key's bias changes no softmax: its gradient is noise, which Adam scales up.
    for state in (expected, result):
        for name in [name for name in state if name.endswith("k_proj.bias")]:
            del state[name]
    assert largest_difference(expected, result) < 2e-5


class _Cut(Exception):
    pass


def test_a_resumed_training_ends_with_the_same_bits(
    tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = trained(tokens, tmp_path / "whole")
    folder = tmp_path / "cut"
    folder.mkdir()
    plain, calls = Translator.training_step, []

    def cut_off(self: Translator, batch: Any, batch_idx: int) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 3:
            raise _Cut
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(Translator, "training_step", cut_off)
    with pytest.raises(_Cut):
        train(plan(tokens), folder, folder, runtime(folder, checkpoint_seconds=0))
    monkeypatch.undo()
    facts, result = trained(tokens, folder)
    assert facts["resumed_at"] == 3
    assert facts["loss"] == whole["loss"]
    assert all(torch.equal(expected[name], result[name]) for name in expected)


# Search


def greedy(model: Any, ids: torch.Tensor, longest: int) -> list[int]:
    """The likeliest word, again and again, without a cache or padding."""
    words = [model.generation_config.decoder_start_token_id]
    while len(words) <= longest and (len(words) == 1 or words[-1] != model.generation_config.eos_token_id):
        logits = model(input_ids=ids[None], decoder_input_ids=torch.tensor([words])).logits
        words.append(int(logits[0, -1].argmax()))
    return words[1:]


def test_one_beam_is_greedy_search(model: Any, tokens: Tokens) -> None:
    batch = batch_of(tokens)
    search = BeamSearch(beams=1, max_new_tokens=6)
    words, _ = writer(model, search)(batch)
    for ids, mask, result in zip(batch["input_ids"], batch["attention_mask"], words.tolist(), strict=True):
        with torch.no_grad():
            expected = greedy(model, ids[mask == 1], 6)
        assert result[: len(expected)] == expected
        assert set(result[len(expected) :]) <= {tokens.pad_id}


@pytest.mark.parametrize("architecture", list(MODELS))
@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0])
def test_scores_are_those_of_the_search(architecture: str, penalty: float) -> None:
    model = build(architecture)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 50, (4, 6), generator=generator)
    source = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.inference_mode():
        result = model.generate(
            **source, num_beams=3, max_new_tokens=8, length_penalty=penalty, early_stopping=True,
            output_scores=True, return_dict_in_generate=True, do_sample=False,
        )  # fmt: skip
        ours = scores(model, source, result.sequences[:, 1:], penalty)
    torch.testing.assert_close(ours, result.sequences_scores, atol=1e-4, rtol=1e-4)


def test_more_beams_find_likelier_texts(model: Any, tokens: Tokens) -> None:
    batch = batch_of(tokens, range(12))
    result = {}
    for beams in (1, 8):
        search = BeamSearch(beams=beams, length_penalty=0.0, max_new_tokens=5)
        result[beams] = writer(model, search)(batch)[1]
    assert float(result[8].mean()) > float(result[1].mean())


def test_a_text_that_could_outgrow_the_positions_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match=r"max_new_tokens=1024: the model has 1024 positions.*=1023"):
        writer(model, BeamSearch(max_new_tokens=1024))
    writer(model, BeamSearch(max_new_tokens=1023))
    writer(build("t5"), BeamSearch(max_new_tokens=5000))


@pytest.mark.parametrize("beams", [1, 3])
def test_a_model_of_nans_has_no_score(model: Any, tokens: Tokens, tmp_path: Path, beams: int) -> None:
    with torch.no_grad():
        model.final_logits_bias.fill_(torch.nan)
    adapter = TranslationAdapter(task_of("task.search.max_new_tokens=4", f"task.search.beams={beams}"))
    result = adapter.predict(
        adapter.runner(model, runtime(tmp_path)), tokens, "test", rows=5, advance=lambda *_: None
    )
    assert result.broken == 5


def test_predictions_are_in_the_order_of_the_rows(model: Any, tokens: Tokens, tmp_path: Path) -> None:
    adapter = TranslationAdapter(task_of("task.search.max_new_tokens=8", "task.search.beams=2"))
    run = adapter.runner(model, runtime(tmp_path))
    moved: list[int] = []
    result = adapter.predict(run, tokens, "test", rows=70, advance=moved.append)
    assert sum(moved) == 70
    assert result.ids.tolist() == list(range(70))
    assert result.logits.shape == (70, 1) and math.isfinite(result.logits.sum())
    split = adapter.split(tokens.split("test"))
    assert list(result.labels) == split.references(70)
    assert result.notes["sacrebleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    few = adapter.predict(run, tokens, "test", rows=3, advance=moved.append)
    assert list(few.predictions) == list(result.predictions[:3])
    assert adapter.same(result, result).all()
    right = type(result)(result.ids, result.labels, result.labels, result.logits)
    assert adapter.score(right) == {"bleu": pytest.approx(100)}


def test_a_quantized_model_writes_with_its_cache_what_it_writes_without(model: Any, tokens: Tokens) -> None:
    batch = batch_of(tokens, range(8))
    calibrated(model, batch)
    source = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        cached, plain = (
            model.generate(**source, num_beams=3, max_new_tokens=8, use_cache=use, do_sample=False)
            for use in (True, False)
        )
    assert torch.equal(cached, plain)
