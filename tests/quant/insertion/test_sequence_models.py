"""Encoder-decoder models: quantization of all three attentions, and padding of both sequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qexp.config import MaxCalibrator, Placement, QuantizationConfig
from qexp.quant.insertion.insert import QuantizedModel, insert
from tests.support.sequence_models import MODELS, batch, build

LINEAR = Placement(name="linear", sites=("linear.weight", "linear.input"))
GEMM = Placement(
    name="gemm", sites=(*LINEAR.sites, "matmul.query", "matmul.key", "matmul.probs", "matmul.value")
)


def calibrated(model: Any, placement: Placement = GEMM) -> QuantizedModel:
    """Insert, observe one batch, calibrate by the largest values; still off."""
    quantization = insert(model, QuantizationConfig(placement=placement))
    tensors = batch()
    masks = tensors["attention_mask"], tensors["decoder_attention_mask"]
    with torch.no_grad(), quantization.observing(*masks):
        model(**tensors)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    return quantization


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("placement", [GEMM, LINEAR], ids=lambda each: each.name)
def test_off_is_bit_identical_to_eager_and_removal_restores_everything(
    architecture: str, placement: Placement
) -> None:
    reference = build(architecture)(**batch()).logits
    model = build(architecture, attention="sdpa")
    keys, parameters = list(model.state_dict()), [id(each) for each in model.parameters()]
    quantization = calibrated(model, placement)
    if placement is GEMM:
        assert torch.equal(model(**batch()).logits, reference)
    quantization.freeze()
    assert not torch.equal(model(**batch()).logits, reference)
    quantization.remove()
    assert list(model.state_dict()) == keys
    assert [id(each) for each in model.parameters()] == parameters
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    assert {config._attn_implementation for config in configs} == {"sdpa"}


@pytest.mark.parametrize("architecture", MODELS)
def test_encoder_decoder_and_cross_attention_have_all_their_sites(architecture: str) -> None:
    quantization = insert(build(architecture), QuantizationConfig(placement=GEMM))
    layers, linears = 2, 2 * (4 + 2) + 2 * (8 + 2) + 1
    matmuls = {kind: 3 * layers for kind in GEMM.sites if kind.startswith("matmul")}
    expected = {"linear.weight": linears, "linear.input": linears, **matmuls}
    assert quantization.describe()["sites"] == expected
    keys = {site.quantizer for site in quantization.sites if _reads_the_encoder(site)}
    assert len(keys) == 1  # what the encoder wrote is one value, for keys and values of all decoder layers


def _reads_the_encoder(site: Any) -> bool:
    cross = "encoder_attn." in site.module or "EncDecAttention." in site.module
    return cross and site.kind == "linear.input" and site.module.endswith((".k_proj", ".v_proj", ".k", ".v"))


@pytest.mark.parametrize("architecture", MODELS)
def test_each_value_is_quantized_once_for_each_forward(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(architecture)
    quantization = calibrated(model)
    quantization.freeze()
    calls: dict[str, int] = {}
    for name, quantizer in quantization.quantizers.items():

        def counted(
            x: torch.Tensor, done: Any = None, name: str = name, work: Any = quantizer._fake_quantize
        ) -> Any:
            calls[name] = calls.get(name, 0) + (done is None)
            return work(x, done)

        monkeypatch.setattr(quantizer, "_fake_quantize", counted)
    model(**batch())
    assert calls == dict.fromkeys(quantization.quantizers, 1)


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize(("source", "target"), [(7, 7), (8, 6)])
def test_garbage_in_padding_changes_no_statistics(architecture: str, source: int, target: int) -> None:
    model = build(architecture)
    quantization = insert(model, QuantizationConfig(placement=GEMM))
    observed = []
    for garbage in (0, 41):
        tensors = batch(source, target)
        quantization.statistics().clear()
        for ids, mask in (("input_ids", "attention_mask"), ("decoder_input_ids", "decoder_attention_mask")):
            tensors[ids] = tensors[ids].masked_fill(tensors[mask] == 0, garbage)
        masks = tensors["attention_mask"], tensors["decoder_attention_mask"]
        with torch.no_grad(), quantization.observing(*masks):
            model(**tensors)
        observed.append(dict(quantization.statistics()))
    for name, first in observed[0].items():
        torch.testing.assert_close(torch.tensor(observed[1][name].lows), torch.tensor(first.lows), msg=name)
        torch.testing.assert_close(torch.tensor(observed[1][name].highs), torch.tensor(first.highs), msg=name)
        assert observed[1][name].histogram.counts.sum() == first.histogram.counts.sum(), name


def test_each_side_counts_its_own_tokens() -> None:
    """Seven places on both sides, so that shapes alone could not tell them apart."""
    model, tensors = build("marian"), batch()
    quantization = insert(model, QuantizationConfig(placement=GEMM))
    source, target = tensors["attention_mask"], tensors["decoder_attention_mask"]
    with torch.no_grad(), quantization.observing(source, target):
        model(**tensors)
    counted = {name: int(each.histogram.counts.sum()) for name, each in quantization.statistics().items()}
    written, cross = int(target.sum()), "model.decoder.layers.0.encoder_attn"
    read = int(source.sum())
    assert counted["model.encoder.layers.0.fc1:linear.input"] == read * 32
    assert counted["model.decoder.layers.0.fc1:linear.input"] == written * 32
    assert counted["lm_head:linear.input"] == written * 32
    assert counted[f"{cross}.k_proj:linear.input"] == counted[f"{cross}:matmul.value"] == read * 32
    assert counted[f"{cross}:matmul.query"] == written * 32
    assert counted[f"{cross}:matmul.probs"] == 4 * int((source.sum(1) * target.sum(1)).sum())
    own = "model.decoder.layers.0.self_attn:matmul.probs"
    assert counted[own] == 4 * int((target.sum(1) ** 2).sum())


@pytest.mark.parametrize("masks", [(None, None), ("source", None), (None, "target")])
def test_a_side_without_a_mask_counts_whole(masks: tuple[str | None, str | None]) -> None:
    model, tensors = build("marian"), batch()
    quantization = insert(model, QuantizationConfig(placement=GEMM))
    by_name = {"source": tensors["attention_mask"], "target": tensors["decoder_attention_mask"], None: None}
    source, target = (by_name[each] for each in masks)
    with torch.no_grad(), quantization.observing(source, target):
        model(**tensors)
    rows = torch.full((3,), 7) if target is None else target.sum(1)
    columns = torch.full((3,), 7) if source is None else source.sum(1)
    observed = quantization.statistics()["model.decoder.layers.1.encoder_attn:matmul.probs"]
    assert int(observed.histogram.counts.sum()) == 4 * int((rows * columns).sum())


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_a_cache_is_the_same_as_without(architecture: str, beams: int) -> None:
    model, tensors = build(architecture), batch()
    calibrated(model).freeze()
    inputs = {name: tensors[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        written = [
            model.generate(**inputs, use_cache=cached, num_beams=beams, max_new_tokens=8, do_sample=False)
            for cached in (True, False)
        ]
    assert torch.equal(*written)
    assert written[0].shape[1] > 3


@pytest.mark.parametrize("architecture", MODELS)
def test_learned_scales_and_all_weights_get_gradients(architecture: str) -> None:
    model = build(architecture)
    quantization = calibrated(model)
    quantization.learn()
    labels = batch()["decoder_input_ids"].masked_fill(batch()["decoder_attention_mask"] == 0, -100)
    model.train()(**batch(), labels=labels).loss.backward()
    ranges = list(quantization.parameters())
    assert len(ranges) == len(quantization.quantizers)
    assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in ranges)
