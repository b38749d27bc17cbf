"""Values that one operation gives: fused projections, and a linear layer before a ReLU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qexp.config import (
    MaxCalibrator,
    PercentileCalibrator,
    Placement,
    QuantizationConfig,
    Scheme,
    WeightScheme,
)
from qexp.quant.calibration.estimators import activation_range
from qexp.quant.insertion.insert import insert
from tests.support import sequence_models
from tests.support.tiny_models import GEMM, batch, build

PERCENTILE = PercentileCalibrator(kind="percentile", percentile=90.0, edge="lower")


@pytest.mark.parametrize("calibrator", [MaxCalibrator(kind="max"), PERCENTILE], ids=["max", "percentile"])
def test_a_fused_range_is_the_largest_of_those_of_its_parts(calibrator: Any) -> None:
    """As pytorch-quantization's fuse_qkv: percentiles of each, not of all values together."""
    of = {}
    for fuse in (False, True):
        model = build("bert")
        placement = GEMM.model_copy(update={"fuse_qkv": fuse})
        quantization = insert(model, QuantizationConfig(placement=placement))
        with torch.no_grad(), quantization.observing(batch()["attention_mask"]):
            model(**batch())
        quantization.calibrate(quantization.statistics(), calibrator)
        of[fuse] = quantization
    layer = "bert.encoder.layer.0.attention.self"
    names = [f"{layer}:matmul.{kind}" for kind in ("query", "key", "value")]
    fused = of[True].quantizers[names[0]]
    assert set(names[1:]).isdisjoint(of[True].quantizers)
    statistics = of[False].statistics()
    assert set(names) <= set(of[True].statistics())
    ranges = [activation_range(statistics[name], calibrator, fused.grid) for name in names]
    expected = type(fused)("value", fused.grid)
    expected.set_range(min(low for low, _ in ranges), max(high for _, high in ranges))
    assert torch.equal(fused.scale, expected.scale) and torch.equal(fused.zero_point, expected.zero_point)


def test_a_linear_layer_before_a_relu_is_one_operation_with_it() -> None:
    sites: Any = ("linear.weight", "linear.output", "activation.output")
    kinds = {}
    for fuse in (False, True):
        placement = Placement(name="outputs", sites=sites, fuse_relu=fuse)
        quantization = insert(build("mobilebert"), QuantizationConfig(placement=placement))
        kinds[fuse] = {(site.kind, site.module) for site in quantization.sites}
    left_out = kinds[False] - kinds[True]
    assert {kind for kind, _ in left_out} == {"linear.output"}
    layer = "mobilebert.encoder.layer.0."
    own = sorted(module.removeprefix(layer) for _, module in left_out if module.startswith(layer))
    assert own == ["ffn.0.intermediate.dense", "intermediate.dense"]
    gelu = insert(
        build("bert"), QuantizationConfig(placement=Placement(name="outputs", sites=sites, fuse_relu=True))
    )
    assert any(
        site.module.endswith("intermediate.dense") for site in gelu.sites if site.kind == "linear.output"
    )


def test_a_single_site_can_be_included() -> None:
    placement = Placement(
        name="one", sites=("linear.weight",), include=("*embedding_transformation:linear.input",)
    )
    quantization = insert(build("mobilebert"), QuantizationConfig(placement=placement))
    activations = [site for site in quantization.sites if not site.is_weight]
    assert [(site.kind, site.module) for site in activations] == [
        ("linear.input", "mobilebert.embeddings.embedding_transformation")
    ]


@pytest.mark.parametrize("symmetric", [False, True])
def test_weights_of_norms_have_one_range(symmetric: bool) -> None:
    placement = Placement(name="norms", sites=("layernorm.weight", "layernorm.output"))
    own = None if symmetric else WeightScheme(granularity="per_tensor", symmetric=False)
    model: Any = build("bert")
    quantization = insert(model, QuantizationConfig(placement=placement, scheme=Scheme(layernorm=own)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    quantization.calibrate_weights(MaxCalibrator(kind="max"))
    quantizers = [quantization.quantizers[site.quantizer] for site in quantization.sites if site.is_weight]
    assert len(quantizers) == 5
    for quantizer in quantizers:
        assert quantizer.scale.dim() == 0 and quantizer.grid.symmetric == symmetric
    weight = quantization.integers("bert.embeddings.LayerNorm:layernorm.weight")
    assert weight.dtype is (torch.int8 if symmetric else torch.uint8)
    assert int(weight.max()) == (127 if symmetric else 255)


def test_a_norm_without_statistics_has_no_zero_point() -> None:
    placement = Placement(name="norms", sites=("layernorm.weight",))
    scheme = Scheme(layernorm=WeightScheme(granularity="per_tensor", symmetric=False))
    quantization = insert(build("mobilebert"), QuantizationConfig(placement=placement, scheme=scheme))
    assert all(each.grid.symmetric and each.grid.axis is None for each in quantization.quantizers.values())


def test_tables_have_a_form_of_their_own() -> None:
    scheme = Scheme(embedding=WeightScheme(granularity="per_tensor", narrow=False, range="full"))
    placement = Placement(name="weights", sites=("linear.weight", "embedding.weight"))
    quantization = insert(build("bert"), QuantizationConfig(placement=placement, scheme=scheme))
    for site in quantization.sites:
        grid = quantization.quantizers[site.quantizer].grid
        table = site.kind == "embedding.weight"
        assert (grid.axis is None, grid.full, grid.qmin) == (table, table, -128 if table else -127)


def test_keys_and_values_of_another_sequence_are_a_product_of_their_own() -> None:
    placement = GEMM.model_copy(update={"fuse_qkv": True})
    scheme = Scheme(weight=WeightScheme(granularity="per_tensor"))
    quantization = insert(
        sequence_models.build("marian"), QuantizationConfig(placement=placement, scheme=scheme)
    )
    quantizer = {site.name: site.quantizer for site in quantization.sites if site.is_weight}
    own, cross = "model.decoder.layers.0.self_attn", "model.decoder.layers.0.encoder_attn"
    of = {
        module: [quantizer[f"{module}.{name}_proj:linear.weight"] for name in "qkv"]
        for module in (own, cross)
    }
    assert len(set(of[own])) == 1
    assert of[cross][1] == of[cross][2] != of[cross][0]


def test_values_are_observed_under_quantized_weights() -> None:
    model: Any = build("bert")
    quantization = insert(model, QuantizationConfig(placement=GEMM))
    quantization.calibrate_weights(MaxCalibrator(kind="max"))
    name = "bert.encoder.layer.1.attention.self:matmul.query"
    highs = []
    for quantized in (False, True):
        quantization.statistics().clear()
        with torch.no_grad(), quantization.observing(quantized_weights=quantized):
            logits = model(**batch()).logits
        highs.append(quantization.statistics()[name].highs)
    weights = {name for name in quantization.quantizers if name not in quantization.activations()}
    quantization.freeze(weights)
    with torch.no_grad():
        assert torch.equal(model(**batch()).logits, logits)
    assert highs[0] != highs[1]
