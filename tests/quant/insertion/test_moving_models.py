"""Models with moving-average ranges, learned zero points, or per-token ranges."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qexp.config import (
    ActivationScheme,
    MaxCalibrator,
    MseCalibrator,
    Quant,
    QuantizationConfig,
    Scheme,
    WeightScheme,
)
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.insertion.insert import insert
from tests.support.tiny_models import NEURST, QDQBERT, batch, build, calibrated

ASYMMETRIC = Scheme(
    weight=WeightScheme(granularity="per_tensor", symmetric=False),
    activation=ActivationScheme(symmetric=False),
)
PER_TOKEN = Scheme(activation=ActivationScheme(dynamic="token"))


def step(model: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(**batch(), labels=torch.tensor([0, 1, 2])).loss.backward()
    optimizer.step()


def tokens_of(value: torch.Tensor, lengths: list[int], probabilities: bool) -> torch.Tensor:
    """All numbers of a value that belong to tokens, row by row."""
    if value.dim() == 2:
        return value.flatten()
    if value.dim() == 3:
        return torch.cat([row[:length].flatten() for row, length in zip(value, lengths, strict=True)])
    columns = lengths if probabilities else [value.shape[-1]] * len(lengths)
    rows = zip(value, lengths, columns, strict=True)
    return torch.cat([row[:, :length, :count].flatten() for row, length, count in rows])


def test_ranges_of_activations_follow_tokens_and_not_padding() -> None:
    model = build("bert").train()
    quantization = calibrated(model, scheme=ASYMMETRIC)
    quantization.use_ema(0.0)
    tensors = batch()
    observed: dict[str, torch.Tensor] = {}
    for name, quantizer in quantization.quantizers.items():
        quantizer.register_forward_pre_hook(lambda _, args, name=name: observed.setdefault(name, args[0]))
    with torch.no_grad(), quantization.padding(tensors["attention_mask"]):
        model(**tensors)
    kinds = {site.quantizer: site.kind for site in quantization.sites}
    lengths = tensors["attention_mask"].sum(1).tolist()
    moved = 0
    for name, value in observed.items():
        counted = tokens_of(value, lengths, kinds[name] == "matmul.probs")
        ends = quantization.quantizers[name].ends
        assert ends is not None
        assert ends.tolist() == [float(counted.min()), float(counted.max())], name
        moved += (float(value.min()), float(value.max())) != (float(counted.min()), float(counted.max()))
    assert set(observed) == {site.quantizer for site in quantization.sites if not site.is_weight}
    assert moved > 3, "padding would have shown"
    assert all(quantizer.counted is None for quantizer in quantization.quantizers.values())
    assert quantization.uses_ema


def test_ranges_of_weights_are_those_of_the_weights_after_every_step() -> None:
    model = build("bert").train()
    quantization = calibrated(model, scheme=ASYMMETRIC)
    quantization.calibrate_weights(MseCalibrator(kind="mse", weights="mse"))
    quantization.use_ema(0.9)
    optimizer = torch.optim.SGD(list(model.parameters()), lr=0.05)
    for _ in range(2):
        step(model, optimizer)
        result = quantization.ranges()
        reference = copy.deepcopy(quantization)
        reference.freeze()
        reference.calibrate_weights(MaxCalibrator(kind="max"))
        weights = {site.quantizer for site in quantization.sites if site.is_weight}
        for name in weights:
            assert torch.equal(result[f"{name}/scale"], reference.ranges()[f"{name}/scale"])
            assert torch.equal(result[f"{name}/zero_point"], reference.ranges()[f"{name}/zero_point"])


def test_fused_projections_follow_as_one() -> None:
    model = build("bert")
    placement = QDQBERT.model_copy(update={"fuse_qkv": True})
    quantization = calibrated(model, scheme=ASYMMETRIC, placement=placement)
    quantization.use_ema(0.5)
    attention = model.bert.encoder.layer[0].attention.self
    with torch.no_grad():
        attention.value.parametrizations.weight.original[0, 0] = 7.0
        attention.query.parametrizations.weight.original[0, 0] = -5.0
    step(model, torch.optim.SGD(model.parameters(), lr=0.0))
    (site,) = (
        s for s in quantization.sites if s.is_weight and s.module.endswith("layer.0.attention.self.key")
    )
    ends = quantization.quantizers[site.quantizer].ends
    assert ends is not None and ends.tolist() == [-5.0, 7.0]


def test_a_ceiling_holds_for_ranges_that_follow() -> None:
    model = build("bert").train()
    scheme = Scheme(clip_gelu=0.25)
    quantization = calibrated(model, scheme=scheme)
    quantization.use_ema(0.0)
    model(**batch())
    clipped = [each for each in quantization.quantizers.values() if each.ceiling is not None]
    assert clipped
    for quantizer in clipped:
        assert quantizer.ends is not None and float(quantizer.ends.abs().max()) <= 0.25


def test_evaluation_changes_no_range() -> None:
    model = build("bert").eval()
    quantization = calibrated(model)
    quantization.use_ema(0.5)
    before = quantization.ranges()
    assert not any(quantizer.training for quantizer in quantization.quantizers.values())
    model(**batch())
    after = quantization.ranges()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("how", ["follow", "learn"])
def test_state_and_ranges_come_back(how: str) -> None:
    def moved(model: Any) -> Any:
        quantization = calibrated(model, scheme=ASYMMETRIC)
        if how == "follow":
            quantization.use_ema(0.5)
        else:
            quantization.learn(zero_points=True)
        return quantization

    model, other = build("bert").train(), build("bert").train()
    for each in (model, other):
        for module in each.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    quantization, loaded = moved(model), moved(other)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        step(model, optimizer)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(**batch()).logits, other(**batch()).logits)
    ranges = quantization.ranges()
    assert all(torch.equal(tensor, loaded.ranges()[name]) for name, tensor in ranges.items())
    model.eval()
    expected = model(**batch()).logits
    quantization.freeze()
    assert torch.equal(model(**batch()).logits, expected)
    fresh = insert(build("bert"), QuantizationConfig(placement=QDQBERT, scheme=ASYMMETRIC))
    fresh.load_ranges(ranges)


def test_only_asymmetric_activations_learn_zero_points() -> None:
    quantization = calibrated(build("bert"), scheme=ASYMMETRIC, placement=NEURST)
    quantization.learn(zero_points=True)
    shifting = {name for name, each in quantization.quantizers.items() if each.shift is not None}
    activations = {site.quantizer for site in quantization.sites if not site.is_weight}
    fixed = {name for name, each in quantization.quantizers.items() if each.values != "act"}
    assert fixed
    assert shifting == activations - fixed
    quantization.freeze()
    quantization.learn()
    assert all(each.shift is None for each in quantization.quantizers.values())


@pytest.mark.parametrize("symmetric", [False, True])
def test_tokens_need_no_statistics_and_leave_no_range(symmetric: bool) -> None:
    model = build("bert")
    scheme = Scheme(activation=ActivationScheme(dynamic="token", symmetric=symmetric))
    reference = model(**batch()).logits.detach()
    quantization = insert(model, QuantizationConfig(placement=QDQBERT, scheme=scheme))
    quantization.calibrate(CalibrationStatistics(), MaxCalibrator(kind="max"))
    activations = {site.quantizer for site in quantization.sites if not site.is_weight}
    ranges = quantization.ranges()
    assert ranges and not any(name.rpartition("/")[0] in activations for name in ranges)
    quantization.load_ranges(ranges)
    quantization.freeze()
    frozen = model(**batch()).logits.detach()
    assert 0 < float((frozen - reference).norm() / reference.norm()) < 0.1
    with torch.no_grad(), quantization.export_mode():
        torch.testing.assert_close(model(**batch()).logits, frozen, rtol=0, atol=1e-5)
    for how in (quantization.learn, lambda: quantization.use_ema(0.9)):
        how()
        assert torch.equal(model.eval()(**batch()).logits, frozen)


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    """With a range per tensor, a large value of one row would move another row's logits."""
    model = build("bert")
    quantization = insert(
        model, QuantizationConfig(placement=QDQBERT, quant=Quant(weight_bits=32), scheme=PER_TOKEN)
    )
    quantization.freeze()
    tensors = batch()
    alone = {name: tensor[:1] for name, tensor in tensors.items()}
    with torch.no_grad():
        torch.testing.assert_close(model(**tensors).logits[:1], model(**alone).logits, rtol=0, atol=1e-5)


class _Reads(TorchDispatchMode):
    """Notes operators that bring a number to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.found.append(str(args))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("scheme", [ASYMMETRIC, Scheme(), PER_TOKEN], ids=["asymmetric", "default", "token"])
@pytest.mark.parametrize("how", ["follow", "learn"])
def test_quantizers_read_nothing_on_the_host(how: str, scheme: Scheme) -> None:
    model = build("bert").train()
    quantization = calibrated(model, scheme=scheme)
    if how == "follow":
        quantization.use_ema(0.5)
    else:
        quantization.learn(zero_points=True)
    for quantizer in quantization.quantizers.values():
        x = torch.randn(2, quantizer.scale.numel() if quantizer.scale.dim() else 3, requires_grad=True)
        reads = _Reads()
        with reads:
            axis = quantizer.grid.axis
            quantizer(x if axis is None else x.movedim(1, axis)).sum().backward()
        assert reads.found == []
