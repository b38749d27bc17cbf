"""SmoothQuant factors: the product of activations and weights in every phase, and serialization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qexp.config import (
    ActivationScheme,
    MaxCalibrator,
    Override,
    Quant,
    QuantizationConfig,
    Scheme,
    WeightScheme,
)
from qexp.errors import QuantizationError
from qexp.quant.algorithms.smoothquant import apply_smoothquant
from qexp.quant.insertion.insert import insert
from tests.support import sequence_models
from tests.support.smoothed_models import LINEAR, moments_of, smoothed
from tests.support.tiny_models import QDQBERT, batch, build

SYMMETRIC = Scheme(activation=ActivationScheme(symmetric=True))
PER_TENSOR = Scheme(weight=WeightScheme(granularity="per_tensor"))


def outliers(model: Any) -> Any:
    """A BERT whose norms give one dimension a hundred times the size, without changing what follows."""
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.attention.output.LayerNorm.weight[3] *= 100
            layer.intermediate.dense.weight[:, 3] /= 100
            layer.output.dense.weight[3] *= 100
            layer.output.dense.bias[3] *= 100
    return model


def logits(model: Any) -> Tensor:
    """Of the batch."""
    result: Tensor = model(**batch()).logits
    return result


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("per_tensor", [True, False])
def test_a_layer_computes_smoothquants_product(alpha: float, per_tensor: bool, tmp_path: Path) -> None:
    """Re-derived in numpy: scale, round, and multiply integers of symmetric grids."""
    scheme = Scheme(
        weight=PER_TENSOR.weight if per_tensor else WeightScheme(), activation=SYMMETRIC.activation
    )
    model = build("bert")
    layer, seen = model.bert.encoder.layer[1].intermediate.dense, {}
    layer.register_forward_hook(lambda module, args, output: seen.update(y=output))
    layer.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))  # before the quantizer's own
    quantization = smoothed(model, tmp_path, alpha, QuantizationConfig(placement=LINEAR, scheme=scheme))
    quantization.off()
    logits(model)
    observed, weight = seen["x"], layer.weight.detach().double().numpy()
    quantization.freeze()
    with torch.no_grad():
        logits(model)
    real = observed[batch()["attention_mask"] != 0].detach().double().numpy()
    s = abs(real).max(0) ** alpha / abs(weight).max(0) ** (1 - alpha)
    moved, pre_scaled = weight * s, real / s
    step_x = abs(pre_scaled).max() / 127
    step_w = abs(moved).max(1, keepdims=True) / 127 if not per_tensor else abs(moved).max() / 127
    x = np.clip(np.rint(seen["x"].double().numpy() / s / step_x), -128, 127)
    product = (x @ np.rint(moved / step_w).T) * (step_x * np.ravel(step_w))
    bias = layer.bias.detach().double().numpy()
    np.testing.assert_allclose(seen["y"].numpy(), product + bias, rtol=1e-3, atol=1e-3 * abs(product).max())


def test_outliers_cost_less(tmp_path: Path) -> None:
    reference = logits(outliers(build("bert")))
    model = outliers(build("bert"))
    smoothed(model, tmp_path)
    plain = outliers(build("bert"))
    moments_alone = insert(plain, QuantizationConfig(placement=LINEAR))
    with torch.no_grad(), moments_alone.observing(batch()["attention_mask"]):
        plain(**batch())
    moments_alone.calibrate(moments_alone.statistics(), MaxCalibrator(kind="max"))
    moments_alone.freeze()
    better, worse = ((logits(each) - reference).abs().max() for each in (model, plain))
    assert better < worse / 2


def test_all_phases_agree_and_learning_moves_scales_and_weights(tmp_path: Path) -> None:
    model = build("bert")
    quantization = smoothed(model, tmp_path)
    frozen = logits(model)
    with torch.no_grad():
        torch.testing.assert_close(logits(model), frozen)
        torch.testing.assert_close(logits(model), frozen)  # weights from the cache
    with torch.no_grad(), quantization.export_mode():
        torch.testing.assert_close(logits(model), frozen, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(model), frozen)
    quantization.learn()
    torch.testing.assert_close(logits(model), frozen)
    torch.nn.functional.cross_entropy(logits(model), torch.tensor([0, 1, 2])).backward()
    layer = model.bert.encoder.layer[0].intermediate.dense
    weights, values = (
        quantization.quantizers[f"bert.encoder.layer.0.intermediate.dense:linear.{kind}"]
        for kind in ("weight", "input")
    )
    for parameter in (layer.parametrizations.weight.original, weights.log_scale, values.log_scale):
        assert parameter.grad.abs().sum() > 0
    assert weights.migration is not None and values.migration is not None
    torch.testing.assert_close(weights.migration * values.migration, torch.ones(32))
    quantization.off()
    torch.testing.assert_close(logits(model), logits(build("bert")))


def test_ranges_that_follow_are_those_of_what_is_rounded(tmp_path: Path) -> None:
    model = build("bert")
    quantization = smoothed(model, tmp_path)
    before = quantization.ranges()
    quantization.use_ema(0.5)
    model.train()
    logits(model)
    model.eval()
    name = "bert.encoder.layer.0.intermediate.dense:linear.weight"
    quantizer = quantization.quantizers[name]
    weight = model.bert.encoder.layer[0].intermediate.dense.parametrizations.weight.original
    largest = (weight / quantizer.migration).detach().abs().amax(1)
    torch.testing.assert_close(quantizer.scale, largest / 127)
    quantization.freeze()
    for key, tensor in quantization.ranges().items():
        if key.endswith("linear.input/scale"):  # dropout alone moves them, and not by magnitudes
            assert 0.3 < float(tensor / before[key]) < 3


def test_halves_stay_halves(tmp_path: Path) -> None:
    quantization = smoothed(build("bert"), tmp_path)
    quantizer = quantization.quantizers["classifier:linear.input"]
    x = torch.randn(3, 32)
    with torch.no_grad():
        half = quantizer(x.bfloat16())
        assert half.dtype is torch.bfloat16
        torch.testing.assert_close(half, quantizer(x.bfloat16().float()).bfloat16())


def test_the_gradient_of_a_weight_is_straight_through(tmp_path: Path) -> None:
    model = build("bert")
    quantization = smoothed(model, tmp_path)
    layer = model.bert.encoder.layer[0].intermediate.dense
    layer.weight.sum().backward()
    weight = layer.parametrizations.weight.original
    quantizer = quantization.quantizers["bert.encoder.layer.0.intermediate.dense:linear.weight"]
    inside = (weight / quantizer.migration / quantizer.scale[:, None]).abs() < 126.9  # ends may be an ulp off
    torch.testing.assert_close(weight.grad[inside], torch.ones(int(inside.sum())))


def test_ranges_carry_the_factors(tmp_path: Path) -> None:
    model = build("bert")
    quantization = smoothed(model, tmp_path)
    expected, ranges = logits(model), quantization.ranges()
    again = build("bert")
    other = insert(again, QuantizationConfig(placement=LINEAR))
    other.load_ranges(ranges)
    other.freeze()
    assert torch.equal(logits(again), expected)
    for name, site in (("a", "classifier:linear.weight"), ("b", "classifier:linear.input")):
        assert torch.equal(ranges[f"{site}/migration"], other.ranges()[f"{site}/migration"]), name
    narrow = {key: tensor[:5] if key.endswith("classifier:linear.input/migration") else tensor
              for key, tensor in ranges.items()}  # fmt: skip
    with pytest.raises(QuantizationError, match=r"unknown: classifier:linear\.input/migration"):
        other.load_ranges(narrow)
    without = {key: tensor for key, tensor in ranges.items() if not key.endswith("/migration")}
    other.load_ranges(without)
    assert not [key for key in other.ranges() if key.endswith("/migration")]


def test_integers_and_stored_weights_are_those_of_the_moved_weight(tmp_path: Path) -> None:
    model = build("bert")
    quantization = smoothed(model, tmp_path)
    name = "bert.encoder.layer.0.intermediate.dense:linear.weight"
    integers = quantization.integers(name)
    layer, quantizer = model.bert.encoder.layer[0].intermediate.dense, quantization.quantizers[name]
    moved = layer.parametrizations.weight.original / quantizer.migration
    expected = torch.round(moved / quantizer.scale[:, None])
    assert torch.equal(integers.float(), expected)
    with quantization.export_mode():
        assert torch.equal(layer.parametrizations.weight.original, integers)
        torch.testing.assert_close(
            layer.weight, integers * quantizer.scale[:, None]
        )  # nothing multiplied again


@pytest.mark.parametrize("bits", [{"weight_bits": 32}, {"activation_bits": 32}])
def test_where_one_side_has_no_quantizer_export_multiplies_again(bits: Any, tmp_path: Path) -> None:
    overrides = {"*attention.self.query": Override(**bits)} if "weight_bits" in bits else {
        "*intermediate*": Override(**bits)
    }  # fmt: skip
    model = build("bert")
    quantization = smoothed(
        model, tmp_path, quant_config=QuantizationConfig(placement=LINEAR, quant=Quant(overrides=overrides))
    )
    with torch.no_grad():
        frozen = logits(model)
        with quantization.export_mode():
            torch.testing.assert_close(logits(model), frozen, rtol=0, atol=1e-5)


def test_values_that_are_residuals_too_are_left_alone(tmp_path: Path) -> None:
    model = build("bert")
    moments = moments_of(model, tmp_path, batch())
    result = apply_smoothquant(insert(model, QuantizationConfig(placement=QDQBERT)), moments, 0.5)
    # Context and GELU of both layers, pooler and classifier take part; four values are residuals, too.
    assert (result.moved, result.left) == (6, 4)
    model.quantization.remove()
    result = apply_smoothquant(insert(model, QuantizationConfig(placement=LINEAR)), moments, 0.5)
    assert (result.moved, result.left) == (10, 0)


def test_a_tied_weight_is_left_alone_and_a_decoder_has_its_own_padding(tmp_path: Path) -> None:
    model = sequence_models.build("marian")
    tensors = sequence_models.batch(7, 6)
    moments = moments_of(model, tmp_path, tensors)
    quantization = insert(model, QuantizationConfig(placement=LINEAR))
    result = apply_smoothquant(quantization, moments, 0.5)
    assert result.left == 1  # the input of the output projection, whose weight is the table of embeddings
    assert quantization.quantizers["lm_head:linear.weight"].migration is None


def test_a_fused_product_has_the_factors_of_the_value_that_it_reads(tmp_path: Path) -> None:
    model = sequence_models.build("marian")
    moments = moments_of(model, tmp_path, sequence_models.batch(7, 6))
    fused = LINEAR.model_copy(update={"fuse_qkv": True})
    quantization = insert(model, QuantizationConfig(placement=fused, scheme=PER_TENSOR))
    apply_smoothquant(quantization, moments, 0.5)
    cross = "model.decoder.layers.0.encoder_attn"
    of_site = {site.name: quantization.quantizers[site.quantizer] for site in quantization.sites}
    query, key, value = (of_site[f"{cross}.{name}_proj:linear.weight"] for name in "qkv")
    assert key is value and query is not key
    assert query.migration is not None and key.migration is not None
    assert not torch.equal(query.migration, key.migration)


def test_moments_of_another_model_are_refused(tmp_path: Path) -> None:
    moments = moments_of(build("bert"), tmp_path, batch())
    with pytest.raises(QuantizationError, match="no moments of the input of"):
        apply_smoothquant(insert(build("distilbert"), QuantizationConfig(placement=LINEAR)), moments, 0.5)


def test_dead_dimensions_have_no_factor(tmp_path: Path) -> None:
    model = build("bert")
    with torch.no_grad():
        model.bert.encoder.layer[0].intermediate.dense.weight[:, 2] = 0
        model.bert.encoder.layer[0].attention.output.LayerNorm.weight[4] = 0
        model.bert.encoder.layer[0].attention.output.LayerNorm.bias[4] = 0
    quantization = smoothed(model, tmp_path)
    result = quantization.quantizers["bert.encoder.layer.0.intermediate.dense:linear.input"].migration
    assert result is not None and bool((result > 0).all())
    assert result[2] == result[4] == 1
    assert torch.isfinite(logits(model)).all()
