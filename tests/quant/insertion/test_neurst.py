"""Sites of the NeurST placement: tied tables quantized once, typed activations, no value quantized twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qexp.config import (
    ActivationScheme,
    ClipCalibrator,
    MaxCalibrator,
    Placement,
    QuantizationConfig,
    Scheme,
    WeightScheme,
)
from qexp.errors import QuantizationError
from qexp.quant.grid import fake_quantize
from qexp.quant.insertion.attentions import attentions
from qexp.quant.insertion.insert import QuantizedModel, float_state_dict, insert
from qexp.quant.insertion.weights import original
from qexp.quant.quantizer import Quantizer
from tests.conftest import experiment
from tests.support import sequence_models, tiny_models
from tests.support.tiny_models import NEURST

SYMMETRIC = Scheme(
    weight=WeightScheme(granularity="per_tensor", narrow=False), activation=ActivationScheme(symmetric=True)
)
CLIP = ClipCalibrator(kind="clip")
TABLES = ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens")
ENCODERS = [(tiny_models, name) for name in tiny_models.CONFIGS]
ALL = [*ENCODERS, *((sequence_models, name) for name in sequence_models.MODELS)]


def calibrated(
    module: Any, name: str, scheme: Scheme = SYMMETRIC, placement: Placement = NEURST
) -> QuantizedModel:
    """A new model, calibrated on its batch under NeurST's ceilings; still off."""
    model, tensors = module.build(name), module.batch()
    quantization = insert(model, QuantizationConfig(placement=placement, scheme=scheme))
    with (
        torch.no_grad(),
        quantization.observing(tensors["attention_mask"], tensors.get("decoder_attention_mask")),
    ):
        model(**tensors)
    quantization.calibrate(quantization.statistics(), CLIP)
    return quantization


def test_the_files_are_what_is_tested_here() -> None:
    made = experiment("task=mrpc", "recipe=neurst")
    assert made.placement == NEURST
    assert made.calibrator == CLIP
    assert made.scheme == SYMMETRIC


@pytest.mark.parametrize(("module", "name"), ALL, ids=[name for _, name in ALL])
def test_off_is_eager_and_frozen_is_near(module: Any, name: str) -> None:
    reference = module.build(name)(**module.batch()).logits.detach()
    quantization = calibrated(module, name, placement=NEURST)
    model: Any = quantization.model
    assert torch.equal(model(**module.batch()).logits, reference)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    quantization.freeze()
    difference = (model(**module.batch()).logits.detach() - reference).abs().max()
    assert 0 < float(difference) < 0.5 * float(reference.abs().max()) + 0.1


@pytest.mark.parametrize(("module", "name"), ALL, ids=[name for _, name in ALL])
def test_no_value_is_quantized_twice(module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quantization = calibrated(module, name)
    quantization.freeze()
    calls: Counter[str] = Counter()
    written: list[Tensor] = []
    work = Quantizer._fake_quantize

    def watched(quantizer: Quantizer, x: Tensor, done: Tensor | None = None) -> Tensor:
        if done is None:
            calls[quantizer.name] += 1
            assert x.data_ptr() not in {y.data_ptr() for y in written}, quantizer.name
        written.append(work(quantizer, x, done))
        return written[-1]

    monkeypatch.setattr(Quantizer, "_fake_quantize", watched)
    quantization.model(**module.batch())
    parts = {name: len(each.parts_of_range) or 1 for name, each in quantization.quantizers.items()}
    weights = [site for site in quantization.sites if site.is_weight]
    parameters = {(site.quantizer, id(original(quantization.model, site))) for site in weights}
    parts |= Counter(name for name, _ in parameters)
    assert calls == parts


@pytest.mark.parametrize(
    ("module", "name", "last"),
    [
        (tiny_models, "bert", "attention.output.dense"),
        (tiny_models, "distilbert", "attention.out_lin"),
        (sequence_models, "marian", "attn.out_proj"),
        (sequence_models, "t5", "Attention.o"),
    ],
)
def test_output_projections_are_found_without_knowing_the_architecture(
    module: Any, name: str, last: str
) -> None:
    model = module.build(name)
    expected = [each for each, _ in model.named_modules() if each.endswith(last)]
    assert sorted(str(each.after) for each in attentions(model).values()) == sorted(expected)
    assert expected


def test_types_decide_on_grids_and_ranges() -> None:
    quantization = calibrated(sequence_models, "marian")
    quantizers, layer = quantization.quantizers, "model.decoder.layers.0"
    softmax = quantizers[f"{layer}.encoder_attn:matmul.probs"]
    relu = quantizers[f"{layer}.activation_fn:activation.output"]
    plain = quantizers[f"{layer}.encoder_attn:matmul.query"]
    assert [each.values for each in (softmax, relu, plain)] == ["softmax", "relu", "act"]
    assert (softmax.grid.qmin, softmax.grid.qmax) == (relu.grid.qmin, relu.grid.qmax) == (0, 255)
    assert (plain.grid.qmin, plain.grid.qmax) == (-128, 127)
    assert float(softmax.scale) == 1 / 256
    highest = max(quantization.statistics()[relu.name].highs)
    assert float(relu.scale) == pytest.approx(min(highest, 16.0) / 255)
    assert not any(int(each.zero_point.abs().max()) for each in (softmax, relu, plain))


def test_gelu_is_no_relu_and_types_are_asked_for() -> None:
    gelu = calibrated(tiny_models, "bert").quantizers[
        "bert.encoder.layer.0.intermediate.intermediate_act_fn:activation.output"
    ]
    assert gelu.values == "act"
    untyped = calibrated(
        sequence_models, "marian", placement=NEURST.model_copy(update={"typed": False, "softmax_max": 1.0})
    )
    assert {each.values for each in untyped.quantizers.values()} == {"act"}


@pytest.mark.parametrize("scheme", [SYMMETRIC, Scheme()], ids=["per_tensor", "per_row"])
def test_a_tied_table_has_one_quantizer_and_sinusoids_have_none(scheme: Scheme) -> None:
    quantization = calibrated(sequence_models, "marian", scheme)
    sites = [site for site in quantization.sites if site.kind == "embedding.weight"]
    assert {site.module for site in sites} == set(TABLES)
    (name,) = {site.quantizer for site in sites}
    assert "lm_head" in {site.module for site in quantization.sites if site.quantizer == name}
    assert quantization.quantizers[name].scale.shape == (() if scheme is SYMMETRIC else (50,))


def test_a_tied_table_is_quantized_once_for_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    quantization = calibrated(sequence_models, "marian")
    quantization.learn()
    model: Any = quantization.model
    (name,) = {site.quantizer for site in quantization.sites if site.kind == "embedding.weight"}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    work, calls = Quantizer._fake_quantize, Counter[str]()

    def counted(quantizer: Quantizer, x: Tensor, done: Tensor | None = None) -> Tensor:
        calls[quantizer.name] += done is None
        return work(quantizer, x, done)

    monkeypatch.setattr(Quantizer, "_fake_quantize", counted)
    tensors = sequence_models.batch()
    for step in range(3):
        for _ in range(2):  # parts of a batch
            model(**tensors, labels=tensors["decoder_input_ids"]).loss.backward()
        optimizer.step()
        assert calls[name] == step + 1


def test_gradients_of_a_tied_table_add_up_from_all_uses() -> None:
    """Against a model whose three uses are parameters of their own."""
    grads = []
    for tied in (True, False):
        model: Any = sequence_models.build("marian")
        if not tied:
            for module in (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens, model.lm_head):
                module.weight = torch.nn.Parameter(module.weight.detach().clone())
        tensors = sequence_models.batch()
        placement = Placement(name="e", sites=("embedding.weight", "linear.weight"))
        quantization = insert(model, QuantizationConfig(placement=placement, scheme=SYMMETRIC))
        quantization.calibrate(quantization.statistics(), CLIP)
        quantization.freeze()
        model(**tensors, labels=tensors["decoder_input_ids"]).loss.backward()
        uses = (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens, model.lm_head)
        parameters = {
            id(use.parametrizations.weight.original): use.parametrizations.weight.original for use in uses
        }
        assert len(parameters) == (1 if tied else 3)
        grads.append(sum(each.grad for each in parameters.values()))
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("name", sequence_models.MODELS)
def test_what_was_tied_stays_tied(name: str, tmp_path: Path) -> None:
    model: Any = sequence_models.build(name)
    tied = _tied(model.state_dict())
    assert any(len(names) > 1 for names in tied)
    quantization = insert(model, QuantizationConfig(placement=NEURST))
    tensors = sequence_models.batch()
    with torch.no_grad(), quantization.observing():
        model(**tensors)
    quantization.calibrate(quantization.statistics(), CLIP)
    quantization.freeze()
    expected, ranges = model(**tensors).logits, quantization.ranges()
    assert _tied(float_state_dict(model)) == tied
    with quantization.export_mode(), torch.no_grad():
        torch.testing.assert_close(model(**tensors).logits, expected.detach(), rtol=0, atol=1e-5)
    assert _tied(float_state_dict(model)) == tied
    quantization.remove()
    assert _tied(model.state_dict()) == tied
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert _tied(again.state_dict()) == tied
    other = insert(again, QuantizationConfig(placement=NEURST))
    other.load_ranges(ranges)
    other.freeze()
    assert torch.equal(again(**tensors).logits, expected)


def _tied(state: dict[str, Tensor]) -> set[frozenset[str]]:
    """Names by the memory that they share."""
    groups: dict[int, set[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(tensor.data_ptr(), set()).add(name)
    return {frozenset(names) for names in groups.values()}


def test_the_lookup_takes_rows_of_the_quantized_table() -> None:
    quantization = calibrated(tiny_models, "bert", Scheme())
    quantization.freeze()
    assert quantization.describe()["sites"]["embedding.weight"] == 3
    table = quantization.model.bert.embeddings.word_embeddings  # type: ignore[union-attr]
    quantizer = quantization.quantizers["bert.embeddings.word_embeddings:embedding.weight"]
    original = table.parametrizations.weight.original
    expected = fake_quantize(original, quantizer.scale, quantizer.zero_point, quantizer.grid)
    assert torch.equal(table(torch.arange(50)), expected)


def test_tied_weights_with_channels_on_two_axes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from qexp.quant.insertion import insert as inserting
    from qexp.quant.insertion.sites import WeightParameter

    both = [
        WeightParameter("linear.weight", "lm_head"),
        WeightParameter("embedding.weight", "model.shared", axis=1),
    ]
    monkeypatch.setattr(inserting, "weights", lambda *_: both)
    with pytest.raises(QuantizationError, match=r"lm_head and model\.shared share a weight.*axis 0 and 1"):
        insert(sequence_models.build("marian"), QuantizationConfig(placement=NEURST))


def test_all_that_trains_gets_a_gradient_on_an_encoder() -> None:
    quantization = calibrated(tiny_models, "bert")
    quantization.learn()
    model: Any = quantization.model
    losses = []
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(5):
        loss = model(**tiny_models.batch(), labels=torch.tensor([0, 1, 2])).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None for each in list(quantization.parameters()))
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
