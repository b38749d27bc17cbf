"""User modules: declared weights and activations are quantized like all others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qexp.config import (
    ActivationScheme,
    MaxCalibrator,
    Placement,
    Quant,
    QuantizationConfig,
    Scheme,
    WeightScheme,
)
from qexp.errors import QuantizationError
from qexp.quant.insertion.insert import QuantizedModel, float_state_dict, insert
from qexp.quant.module import DECLARED, QuantModule
from qexp.quant.quantizer_mode import QuantizerMode
from tests.support import sequence_models, tiny_models

MAX = MaxCalibrator(kind="max")
X = torch.randn(6, 4, 8, generator=torch.Generator().manual_seed(1))


class Mixer(QuantModule):
    """A kernel of its own, one of each type of activation."""

    def __init__(self, inputs: int = 8, outputs: int = 6) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.kernel = nn.Parameter(torch.randn(inputs, outputs))
        self.gain = nn.Parameter(torch.ones(outputs))
        self.declare_weight("kernel", axis=1)
        self.declare_activation("hidden", "relu")
        self.declare_activation("gate", "softmax")
        self.declare_activation("output")

    def forward(self, x: Tensor) -> Tensor:
        y = (x @ self.quantized_weight("kernel") + self.bias) * self.gain
        hidden = self.quantized("hidden", y.relu())
        return self.quantized("output", hidden * self.quantized("gate", y.softmax(-1)) - 0.1)


class Biased(QuantModule, nn.Linear):
    """A mixin: the weight of a linear layer, declared."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.declare_weight("weight")


def calibrated(
    model: nn.Module, placement: Placement = DECLARED, scheme: Scheme | None = None
) -> QuantizedModel:
    """Insert, observe, calibrate by the largest values; still off."""
    quantization = insert(
        model, QuantizationConfig(placement=placement, scheme=scheme or Scheme()), example=(X[:2],)
    )
    with torch.no_grad(), quantization.observing():
        model(X)
    quantization.calibrate(quantization.statistics(), MAX)
    return quantization


def test_alone_it_computes_in_floating_point_and_removal_restores_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Mixer(), Biased(6, 5))
    expected, names, order = model(X), list(model.state_dict()), [id(each) for each in model.parameters()]
    quantization = calibrated(model)
    assert torch.equal(model(X), expected)
    assert set(float_state_dict(model)) == set(names)
    quantization.freeze()
    assert not torch.equal(model(X), expected)
    quantization.remove()
    assert torch.equal(model(X), expected)
    assert list(model.state_dict()) == names
    assert [id(each) for each in model.parameters()] == order
    assert type(model[0]) is Mixer
    assert model[0].taps == {}


@pytest.mark.parametrize("symmetric", [True, False])
def test_values_are_those_of_torchs_own_fake_quantization(symmetric: bool) -> None:
    torch.manual_seed(0)
    model = Mixer()
    scheme = Scheme(activation=ActivationScheme(symmetric=symmetric))
    quantization = calibrated(model, scheme=scheme)
    quantization.freeze()
    quantizers = quantization.quantizers
    with torch.no_grad():
        kernel = quantizers["kernel:declared.weight"]
        zeros = torch.zeros(6, dtype=torch.int32)
        original: Tensor = model.parametrizations.kernel.original  # type: ignore[union-attr,assignment]
        weight = torch.fake_quantize_per_channel_affine(original, kernel.scale, zeros, 1, -127, 127)
        torch.testing.assert_close(model.quantized_weight("kernel"), weight)

        def faked(name: str, x: Tensor) -> Tensor:
            each = quantizers[f"{name}:declared.activation"]
            ends = each.grid.qmin, each.grid.qmax
            return torch.fake_quantize_per_tensor_affine(x, float(each.scale), int(each.zero_point), *ends)

        y = X @ weight
        expected = faked("output", faked("hidden", y.relu()) * faked("gate", y.softmax(-1)) - 0.1)
        torch.testing.assert_close(
            model(X), expected, rtol=0, atol=1.01 * float(quantizers["output:declared.activation"].scale)
        )
        assert (model(X) - expected).abs().gt(1e-6).float().mean() < 0.02  # a tie falls the other way at most


def test_types_are_kept_whatever_the_scheme() -> None:
    for symmetric in (True, False):
        quantizers = calibrated(
            Mixer(), scheme=Scheme(activation=ActivationScheme(symmetric=symmetric))
        ).quantizers
        gate, hidden = quantizers["gate:declared.activation"], quantizers["hidden:declared.activation"]
        assert (gate.grid.qmin, gate.grid.qmax, int(gate.zero_point)) == (0, 255, 0)
        assert float(gate.scale) == pytest.approx(1 / 255)
        gate.switch(QuantizerMode.LEARNED)
        assert (gate.mode, gate.log_scale) == (QuantizerMode.FROZEN, None)
        assert (hidden.grid.qmin, hidden.grid.qmax, int(hidden.zero_point)) == (0, 255, 0)


def test_a_value_that_a_linear_layer_takes_has_one_quantizer() -> None:
    model = nn.Sequential(Mixer(), nn.Linear(6, 5), Biased(5, 3))
    placement = Placement(name="mixed", sites=(*DECLARED.sites, "linear.weight", "linear.input"))
    quantization = calibrated(model, placement)
    by_site = {(site.kind, site.module): site.quantizer for site in quantization.sites}
    assert by_site["linear.input", "1"] == by_site["declared.activation", "0.output"]
    weights = [site for site in quantization.sites if site.is_weight]
    assert [(site.kind, site.module) for site in weights] == [
        ("linear.weight", "1"), ("linear.weight", "2"), ("declared.weight", "0"),
    ]  # fmt: skip


def test_it_trains_with_learned_ranges_and_a_copy_is_its_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Mixer(), Biased(6, 1))
    quantization = calibrated(model)
    quantization.learn()
    twin = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    target, losses = X.sum(-1, keepdim=True), []
    for _ in range(30):
        loss = nn.functional.mse_loss(model(X), target)
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None for each in list(quantization.parameters()))
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    with torch.no_grad():
        assert float(nn.functional.mse_loss(twin(X), target)) == pytest.approx(losses[0])


def test_integers_times_scale_are_the_weight() -> None:
    for bits, dtype in ((4, torch.int8), (8, torch.int8), (12, torch.int32)):
        model = Mixer()
        quantization = insert(
            model, QuantizationConfig(placement=DECLARED, quant=Quant(weight_bits=bits)), example=(X,)
        )
        with pytest.raises(QuantizationError, match="has no range"):
            quantization.integers("kernel:declared.weight")
        with quantization.observing(), torch.no_grad():
            model(X)
        quantization.calibrate(quantization.statistics(), MAX)
        quantization.freeze()
        integers = quantization.integers("kernel:declared.weight")
        assert integers.dtype is dtype
        assert int(integers.abs().max()) == 2 ** (bits - 1) - 1
        scale = quantization.quantizers["kernel:declared.weight"].scale
        assert torch.equal(integers * scale, model.quantized_weight("kernel"))
    unsigned = calibrated(Mixer(), scheme=Scheme(weight=WeightScheme(symmetric=False)))
    assert unsigned.integers("kernel:declared.weight").dtype is torch.uint8
    with pytest.raises(
        QuantizationError, match=r"kernel: no weight of that name; there are kernel:declared\.weight"
    ):
        quantization.integers("kernel")


def test_the_export_form_stores_declared_weights_as_integers() -> None:
    model = nn.Sequential(Mixer(), Biased(6, 2))
    quantization = calibrated(model)
    quantization.freeze()
    with torch.no_grad():
        expected = model(X)
        with quantization.export_mode():
            stored: Any = model[0]
            assert stored.parametrizations.kernel.original.dtype is torch.int8
            torch.testing.assert_close(model(X), expected, rtol=0, atol=1e-6)
        assert torch.equal(model(X), expected)


def test_a_head_of_ones_own_on_a_transformer() -> None:
    model = tiny_models.build("bert")
    model.classifier = Biased(32, 3)
    sites = (
        *DECLARED.sites[:1],
        "linear.input",
        "matmul.query",
        "matmul.key",
        "matmul.probs",
        "matmul.value",
    )
    quantization = tiny_models.calibrated(model, placement=Placement(name="head", sites=sites))
    assert quantization.describe()["sites"]["declared.weight"] == 1
    quantization.freeze()
    assert torch.isfinite(model(**tiny_models.batch()).logits).all()


def test_padding_of_ones_own_values_is_left_out() -> None:
    quantization = insert(Mixer(), QuantizationConfig(placement=DECLARED), example=(X,))
    mask = torch.ones(6, 4)
    mask[2:, 3] = 0
    with quantization.observing(mask), torch.no_grad():
        quantization.model(X)
    counts = quantization.statistics()["output:declared.activation"].histogram.counts
    assert int(counts.sum()) == int(mask.sum()) * 6


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (
            lambda m: m.declare_weight("kernle"),
            "no such parameter, it has bias, kernel, gain: assign self.kernle",
        ),
        (lambda m: m.declare_weight("kernel", axis=2), "axis=2.*allowed are 0 to 1"),
        (lambda m: m.declare_activation("output"), "taken are: hidden, gate, output"),
        (lambda m: m.declare_activation("a.b"), "without dots"),
        (lambda m: m.declare_activation("new", "tanh"), "'tanh'.*allowed are act, relu, softmax"),
        (
            lambda m: m.quantized("outptu", X),
            r"Mixer declared hidden, gate, output; call self\.declare_activation",
        ),
        (lambda m: m.quantized_weight("bias"), r"Mixer declared kernel; call self\.declare_weight"),
    ],
)
def test_mistakes_are_named_with_the_way_out(act: Any, words: str) -> None:
    with pytest.raises(QuantizationError, match=words):
        act(Mixer())


def test_a_declared_activation_that_nothing_passes_is_named() -> None:
    model = Mixer()
    model.declare_activation("unused")
    with pytest.raises(QuantizationError, match="no value passes unused of Mixer"):
        insert(model, QuantizationConfig(placement=DECLARED), example=(X,))
    assert model.taps == {}


def test_what_a_model_takes_must_be_known() -> None:
    with pytest.raises(QuantizationError, match=r"Mixer is no language model.*example=\(x,\)"):
        insert(Mixer(), QuantizationConfig(placement=DECLARED))
    tokens = {"input_ids": torch.ones(1, 3, dtype=torch.int64)}
    with pytest.raises(QuantizationError, match="leave the example out"):
        insert(sequence_models.build("t5"), QuantizationConfig(placement=tiny_models.NEURST), example=tokens)
    weights_only = Placement(name="w", sites=("declared.weight",))
    assert insert(Mixer(), QuantizationConfig(placement=weights_only)).describe()["quantizers"] == 1


def test_arguments_by_name_serve_as_an_example() -> None:
    quantization = insert(Mixer(), QuantizationConfig(placement=DECLARED), example={"x": X})
    assert quantization.describe()["quantizers"] == 4
