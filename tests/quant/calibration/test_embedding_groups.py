"""Groups of embedding dimensions: their members, their ranges, and their effect on the error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qexp.config import (
    ActivationScheme,
    EmaCalibrator,
    EntropyCalibrator,
    MaxCalibrator,
    MseCalibrator,
    Override,
    PercentileCalibrator,
    Placement,
    Quant,
    QuantizationConfig,
    Scheme,
    SqnrCalibrator,
)
from qexp.errors import QuantizationError
from qexp.quant.calibration.embedding_groups import EmbeddingGroups
from qexp.quant.grid import Grid, fake_quantize, scale_and_zero_point
from qexp.quant.insertion.insert import QuantizedModel, insert
from qexp.quant.quantizer import Quantizer
from tests.support.tiny_models import QDQBERT, SHAPE, batch, build

HIDDEN = SHAPE["hidden_size"]
OUTLIER = 13
"""A dimension that reaches far beyond the others."""
MAX = MaxCalibrator(kind="max")
LAYER = "bert.encoder.layer.1"
VALUE = f"{LAYER}.intermediate.dense:linear.input"
SITES = Placement(name="inputs", sites=("linear.input", "residual.input", "matmul.query"))


def scheme(groups: int, *, permute: bool = True, symmetric: bool = False) -> Scheme:
    """A scheme with so many groups; one is a range for the tensor."""
    if groups == 1:
        return Scheme(activation=ActivationScheme(symmetric=symmetric))
    return Scheme(
        activation=ActivationScheme(
            granularity="per_embedding_group", groups=groups, permute=permute, symmetric=symmetric
        )
    )


def with_outlier(factor: float = 60.0) -> Any:
    """A model whose norms give one dimension far larger values, which is read with smaller weights."""
    model = build("bert")
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith("LayerNorm"):
                module.weight[OUTLIER] *= factor
            if name.endswith(("query", "key", "value", "intermediate.dense")):
                module.weight[:, OUTLIER] /= factor
    return model


def calibrated(model: Any, quant_config: QuantizationConfig, calibrator: Any = MAX) -> QuantizedModel:
    """Insert, observe one batch, calibrate; still off."""
    quantization = insert(model, quant_config)
    tensors = batch()
    with torch.no_grad(), quantization.observing(tensors["attention_mask"], dimensions=True):
        model(**tensors)
    quantization.calibrate(quantization.statistics(), calibrator)
    return quantization


def logits(model: Any) -> Tensor:
    """Logits of the batch."""
    result: Tensor = model(**batch()).logits
    return result


def error(groups: int, *, permute: bool = True, bits: int = 6) -> float:
    """Mean squared error of the last hidden state, but for the outlier, with quantized linear inputs.

    Residuals are not: in a model this small, the outlier's own error there moves everything.
    """
    model = with_outlier()
    ordinary = torch.arange(HIDDEN) != OUTLIER

    def state() -> Tensor:
        hidden: Tensor = model.bert(**batch()).last_hidden_state[batch()["attention_mask"] != 0]
        return hidden[..., ordinary]

    with torch.no_grad():
        reference = state()
        sites = Placement(name="inputs", sites=("linear.input",))
        quant_config = QuantizationConfig(
            placement=sites, quant=Quant(activation_bits=bits), scheme=scheme(groups, permute=permute)
        )
        calibrated(model, quant_config).freeze()
        return float((state() - reference).square().mean())


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 100), st.integers(2, 120), st.randoms(use_true_random=False))
def test_groups_are_as_even_as_can_be(width: int, groups: int, random: Any) -> None:
    grouping = EmbeddingGroups.of("a:linear.input", width, scheme(groups).activation)
    assert grouping is not None and grouping.groups == min(groups, width)
    order = list(range(width))
    random.shuffle(order)
    members = grouping.split(torch.tensor(order))
    sizes = members.bincount(minlength=grouping.groups)
    assert int(sizes.max()) - int(sizes.min()) <= 1 and int(sizes.min()) >= 1
    assert members[order].tolist() == sorted(members.tolist())
    assert grouping.natural().tolist() == sorted(members.tolist())


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("bert.encoder.layer.11.attention.self.query:linear.input", "bert.encoder.layer.11"),
        ("model.decoder.layers.0:residual.input", "model.decoder.layers.0"),
        ("mobilebert.encoder.layer.3.ffn.1.output:residual.input", "mobilebert.encoder.layer.3"),
        ("bert.embeddings.LayerNorm:layernorm.output", "bert.embeddings.LayerNorm"),
        (":linear.input", ""),
    ],
)
def test_the_layer_of_a_value(name: str, layer: str) -> None:
    grouping = EmbeddingGroups.of(name, 8, scheme(2).activation)
    assert grouping is not None and grouping.layer == layer
    assert EmbeddingGroups.of(name, None, scheme(2).activation) is None
    assert EmbeddingGroups.of(name, 8, scheme(1).activation) is None


def test_hidden_states_have_groups_and_all_else_one_range() -> None:
    quantization = calibrated(build("bert"), QuantizationConfig(placement=QDQBERT, scheme=scheme(5)))
    shapes = {name: tuple(each.scale.shape) for name, each in quantization.quantizers.items()}
    assert shapes[VALUE] == (5,)
    assert shapes[f"{LAYER}.output.dense:linear.input"] == (5,)  # 64 dimensions
    assert shapes[f"{LAYER}.attention.self:matmul.query"] == ()
    assert shapes["classifier:linear.input"] == ()  # [B, H]
    own = [each for name, each in quantization.quantizers.items() if name.startswith(LAYER)]
    hidden = [each.members for each in own if each.members is not None and len(each.members) == HIDDEN]
    assert len(hidden) > 3 and all(torch.equal(each, hidden[0]) for each in hidden)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_permutation_puts_the_outlier_with_the_widest(symmetric: bool) -> None:
    quant_config = QuantizationConfig(placement=SITES, scheme=scheme(HIDDEN // 4, symmetric=symmetric))
    quantization = calibrated(with_outlier(), quant_config)
    quantizer, observed = quantization.quantizers[VALUE], quantization.statistics()
    assert quantizer.members is not None and int(quantizer.members[OUTLIER]) == HIDDEN // 4 - 1
    names = [
        name
        for name, each in quantization.quantizers.items()
        if name.startswith(LAYER) and each.members is not None and len(each.members) == HIDDEN
    ]
    values = [dimensions for name in names if (dimensions := observed[name].dimensions) is not None]
    reach = torch.stack([each.high - each.low for each in values]).amax(0)
    for group in range(HIDDEN // 4 - 1):  # no dimension reaches further than one of the next group
        assert reach[quantizer.members == group].max() <= reach[quantizer.members == group + 1].min()
    natural = calibrated(with_outlier(), QuantizationConfig(placement=SITES, scheme=scheme(4, permute=False)))
    members = natural.quantizers[VALUE].members
    assert members is not None and members.tolist() == [k // 8 for k in range(HIDDEN)]


def test_more_groups_lose_less_of_a_model_with_an_outlier() -> None:
    one, six, each = error(1), error(6), error(HIDDEN)
    assert each < 0.5 * six < 0.1 * one
    assert six < 0.7 * error(6, permute=False)


def test_a_group_for_each_dimension_is_a_range_for_each() -> None:
    quantization = calibrated(with_outlier(), QuantizationConfig(placement=SITES, scheme=scheme(HIDDEN)))
    quantizer, dimensions = quantization.quantizers[VALUE], quantization.statistics()[VALUE].dimensions
    assert dimensions is not None
    scale, zero = scale_and_zero_point(dimensions.low, dimensions.high, quantizer.grid)
    assert torch.equal(quantizer.per_dimension(quantizer.scale), scale)
    assert torch.equal(quantizer.per_dimension(quantizer.zero_point), zero)


def grouped(symmetric: bool = False) -> Quantizer:
    """A quantizer of seven dimensions in three groups."""
    grouping = EmbeddingGroups("layer.0", 7, 3, True)
    grid = Grid(4, signed=symmetric, symmetric=symmetric, axis=-1)
    quantizer = Quantizer("layer.0:linear.input", grid, grouping=grouping)
    quantizer.set_members(torch.tensor([2, 0, 1, 1, 0, 2, 0]))
    quantizer.set_range(torch.tensor([-1.0, -0.5, -3.0]), torch.tensor([1.0, 2.0, 9.0]))
    return quantizer


@pytest.mark.parametrize("symmetric", [True, False])
def test_every_dimension_is_quantized_with_the_range_of_its_group(symmetric: bool) -> None:
    quantizer, x = grouped(symmetric), torch.randn(3, 5, 7) * 4
    assert quantizer.members is not None
    one = Grid(4, signed=symmetric, symmetric=symmetric)
    quantizer.switch(quantizer.mode.FROZEN)
    result = quantizer(x)
    for dimension, group in enumerate(quantizer.members.tolist()):
        ends = quantizer.scale[group], quantizer.zero_point[group]
        assert torch.equal(result[..., dimension], fake_quantize(x[..., dimension], *ends, one))


def test_a_learned_scale_is_one_of_the_whole_group() -> None:
    """Its gradient is that of a quantizer which sees the group's dimensions alone."""
    quantizer, x = grouped(), torch.randn(3, 5, 7) * 4
    grad = torch.randn(3, 5, 7)
    quantizer.switch(quantizer.mode.LEARNED)
    quantizer(x).backward(grad)
    assert quantizer.log_scale is not None and quantizer.log_scale.shape == (3,)
    assert quantizer.log_scale.grad is not None and quantizer.members is not None
    for group in range(3):
        members = (quantizer.members == group).nonzero().flatten()
        alone = Quantizer("alone", Grid(4, signed=False, symmetric=False))
        alone.set_scale(quantizer.scale[group], quantizer.zero_point[group])
        alone.parts = round(3 * 5 * 7 / 3) / (15 * len(members))  # type: ignore[assignment]
        alone.switch(alone.mode.LEARNED)
        alone(x[..., members]).backward(grad[..., members])
        assert alone.log_scale is not None and alone.log_scale.grad is not None
        torch.testing.assert_close(quantizer.log_scale.grad[group], alone.log_scale.grad)


@pytest.mark.parametrize("groups", [3, 6])
def test_frozen_learned_and_export_agree(groups: int) -> None:
    model = build("bert")
    quantization = calibrated(model, QuantizationConfig(placement=QDQBERT, scheme=scheme(groups)))
    quantization.freeze()
    frozen = logits(model)
    with torch.no_grad():
        assert torch.equal(logits(model), frozen)
        with quantization.export_mode():
            torch.testing.assert_close(logits(model), frozen, rtol=0, atol=1e-6)
    quantization.learn()
    assert torch.equal(logits(model), frozen)


def test_ranges_carry_the_groups_and_are_refused_where_they_do_not_fit() -> None:
    quant_config = QuantizationConfig(placement=QDQBERT, scheme=scheme(3))
    first = build("bert")
    quantization = calibrated(first, quant_config)
    quantization.freeze()
    ranges, other = quantization.ranges(), build("bert")
    again = insert(other, quant_config)
    again.load_ranges(ranges)
    again.freeze()
    assert torch.equal(logits(other), logits(first))
    with pytest.raises(QuantizationError, match="of another shape"):
        insert(build("bert"), QuantizationConfig(placement=QDQBERT, scheme=scheme(4))).load_ranges(ranges)
    with pytest.raises(QuantizationError, match=r"unknown: .*/members"):
        insert(build("bert"), QuantizationConfig(placement=QDQBERT, scheme=scheme(1))).load_ranges(
            {key: each[0] if each.shape == (3,) else each for key, each in ranges.items()}
        )
    ranges[f"{VALUE}/members"][:] = 1
    with pytest.raises(QuantizationError, match=r"groups \[1\] of dimensions, for 3 ranges"):
        again.load_ranges(ranges)


def test_an_override_has_groups_at_its_sites_alone() -> None:
    wide = Override(activation=scheme(3).activation)
    quant_config = QuantizationConfig(placement=SITES, quant=Quant(overrides={"@last": wide}))
    quantization = calibrated(build("bert"), quant_config)
    with_groups = {name for name, each in quantization.quantizers.items() if each.members is not None}
    assert quant_config.groups_dimensions
    assert VALUE in with_groups
    # The first layer's output is the last one's input, one value: an override of any site is one of it.
    assert all(
        name.startswith(("bert.encoder.layer.1", "bert.encoder.layer.0.output")) for name in with_groups
    )


def test_statistics_without_dimensions_are_not_enough() -> None:
    model = build("bert")
    quantization = insert(model, QuantizationConfig(placement=SITES, scheme=scheme(3)))
    with torch.no_grad(), quantization.observing():
        logits(model)
    with pytest.raises(QuantizationError, match="observe again with dimensions=True"):
        quantization.calibrate(quantization.statistics(), MAX)


@pytest.mark.parametrize(
    "calibrator",
    [
        EmaCalibrator(kind="ema"),
        PercentileCalibrator(kind="percentile", percentile=99.9),
        MseCalibrator(kind="mse"),
        MseCalibrator(kind="mse", search="golden"),
        SqnrCalibrator(kind="sqnr"),
        EntropyCalibrator(kind="entropy"),
    ],
)
def test_every_calibrator_finds_ranges_of_groups(calibrator: Any) -> None:
    model = with_outlier()
    with torch.no_grad():
        reference = logits(model)
        calibrated(model, QuantizationConfig(placement=SITES, scheme=scheme(6)), calibrator).freeze()
        assert float((logits(model) - reference).square().mean()) < 0.05 * float(reference.var())
