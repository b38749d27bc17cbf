"""Costs of tiny models compared with counts by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from qexp.config import MaxCalibrator, Placement, Quant, QuantizationConfig, Scheme, WeightScheme
from qexp.quant.cost import one_row, work_of
from qexp.quant.insertion.insert import QuantizedModel
from tests.support.sequence_models import build as build_translator
from tests.support.tiny_models import CONFIGS, PRENORM, QDQBERT, build, calibrated

HIDDEN, INNER, LAYERS, LABELS = 32, 64, 2, 3


def bert_macs(tokens: int) -> int:
    """Multiply-accumulates of the tiny BERT, from the sizes in its configuration."""
    linear = tokens * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)
    attention = 2 * tokens * tokens * HIDDEN
    return LAYERS * (linear + attention) + HIDDEN * HIDDEN + HIDDEN * LABELS


def test_bert_is_counted_by_hand() -> None:
    work = work_of(calibrated(build("bert")), row(10))
    assert work.tokens == 10
    assert work.macs == bert_macs(10)
    assert work.bops({}) == 32 * 32 * work.macs
    assert work.bytes({}) == 4 * sum(each.numel() for each in build("bert").parameters())


def test_every_product_has_the_bits_of_both_operands() -> None:
    quantization = calibrated(build("bert"), Quant(weight_bits=4, activation_bits=8))
    work = work_of(quantization, row(10))
    attention = LAYERS * 2 * 10 * 10 * HIDDEN
    assert work.bops(quantization.bits) == 4 * 8 * (work.macs - attention) + 8 * 8 * attention
    for product in work.products:
        assert None not in product.operands
    assert {product.module for product in work.products} >= {"classifier", "bert.pooler.dense"}


def test_an_input_that_a_norm_s_quantizer_gives_is_quantized() -> None:
    """NeurST has no site at the inputs of linear layers: what they read is quantized elsewhere, or not."""
    work = work_of(calibrated(build("bert"), placement=PRENORM), row(10))
    inputs = {product.module: product.operands[0] for product in work.products if product.reads is not None}
    first = "bert.encoder.layer.0."
    assert inputs[f"{first}attention.self.query"] == "bert.embeddings.LayerNorm:layernorm.output"
    assert inputs[f"{first}output.dense"] == f"{first}intermediate.intermediate_act_fn:activation.output"
    assert inputs["bert.pooler.dense"] == "bert.encoder.layer.1.output.LayerNorm:layernorm.output"
    assert inputs["classifier"] == "bert.pooler.activation:activation.output"


def test_an_excluded_layer_reads_floats_though_others_quantize_the_same_tensor() -> None:
    excluding = QDQBERT.model_copy(update={"sites": ("linear.weight", "linear.input"), "exclude": ("*.key",)})
    work = work_of(calibrated(build("bert"), placement=excluding), row(10))
    operands = {product.module: product for product in work.products if product.reads is not None}
    key, query = (operands[f"bert.encoder.layer.0.attention.self.{name}"] for name in ("key", "query"))
    assert key.operands == (None, None)
    assert query.operands[0] is not None
    attention = [product for product in work.products if product.reads is None]
    assert {product.operands for product in attention} == {(None, None)}


def test_layers_that_read_the_same_tensor_have_the_same_number() -> None:
    weights_only = QDQBERT.model_copy(update={"sites": ("linear.weight",)})
    work = work_of(calibrated(build("bert"), placement=weights_only), row(10))
    of = {product.module: product.reads for product in work.products if product.reads is not None}
    names = [f"bert.encoder.layer.1.attention.self.{name}" for name in ("query", "key", "value")]
    assert len({of[name] for name in names}) == 1
    assert len(set(of.values())) == len(of) - 2 * LAYERS


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_bytes_are_integers_scales_and_floats(granularity: Any, symmetric: bool) -> None:
    """One layer of 5 by 7 at 3 bits, its bias and a norm in floating point."""
    model = nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5)).eval()
    placement = Placement(name="weights", sites=("linear.weight",))
    scheme = Scheme(weight=WeightScheme(granularity=granularity, symmetric=symmetric))
    quantization = calibrated_module(model, placement, Quant(weight_bits=3, activation_bits=32), scheme)
    work = work_of(quantization, {"input": torch.ones(1, 4, 7)})
    scales = 5 if granularity == "per_channel" else 1
    integers = 14  # 35 weights of 3 bits are 105 bits
    assert work.bytes(quantization.bits) == integers + 4 * (scales * (1 if symmetric else 2)) + 4 * (
        5 + 5 + 5
    )
    assert work.macs == 4 * 5 * 7
    assert work.bops(quantization.bits) == work.macs * 3 * 32
    assert work.bytes({}) == 4 * (35 + 15)


def test_a_table_that_modules_share_is_stored_once() -> None:
    model = build_translator("marian")
    sites = ("linear.weight", "embedding.weight")
    quantization = calibrated_module(
        model, Placement(name="weights", sites=sites), Quant(activation_bits=32), Scheme()
    )
    work = work_of(quantization)
    assert work.bytes({}) == 4 * sum(each.numel() for each in build_translator("marian").parameters())
    (output,) = (product for product in work.products if product.module == "lm_head")
    (table,) = (each for each in work.stored if each.quantizer == output.operands[1])
    assert table.elements == model.model.shared.weight.numel()


@pytest.mark.parametrize("architecture", CONFIGS)
def test_counting_leaves_the_model_as_it_was(architecture: str) -> None:
    model = build(architecture)
    quantization = calibrated(model)
    quantization.freeze()
    before, taps = model(**one_row(model)).logits, attributes(model)
    phases = [quantizer.mode for quantizer in quantization.quantizers.values()]
    first, second = work_of(quantization), work_of(quantization)
    assert first == second
    assert torch.equal(model(**one_row(model)).logits, before)
    assert attributes(model) == taps
    assert [quantizer.mode for quantizer in quantization.quantizers.values()] == phases
    assert first.tokens == 30


def row(tokens: int) -> dict[str, Any]:
    return one_row(build("bert"), tokens)


def calibrated_module(model: Any, placement: Placement, quant: Quant, scheme: Scheme) -> QuantizedModel:
    from qexp.quant.insertion.insert import insert

    quantization = insert(model, QuantizationConfig(placement=placement, quant=quant, scheme=scheme))
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    return quantization


def attributes(model: nn.Module) -> dict[str, Any]:
    """Hooks and attributes of every module, by name."""
    return {
        name: (len(module._forward_hooks), len(module._forward_pre_hooks), sorted(vars(module)))
        for name, module in model.named_modules()
    }
