"""Models with quantizers: bit-identical while off, correct while on, and restored after removal."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.optimizer import _global_optimizer_post_hooks as optimizer_hooks

from qexp.config import ActivationScheme, MaxCalibrator, Quant, QuantizationConfig, Scheme, WeightScheme
from qexp.errors import QuantizationError
from qexp.quant.calibration.statistics import CalibrationStatistics
from qexp.quant.grid import fake_quantize
from qexp.quant.insertion.insert import float_state_dict, insert
from qexp.quant.quantizer import Quantizer
from qexp.quant.quantizer_mode import QuantizerMode
from tests.support.tiny_models import CONFIGS, QDQBERT, batch, build, calibrated

ASYMMETRIC = Scheme(
    weight=WeightScheme(granularity="per_tensor", symmetric=False),
    activation=ActivationScheme(symmetric=False),
)


def logits(model: Any) -> torch.Tensor:
    """Logits of the batch."""
    result: torch.Tensor = model(**batch()).logits
    return result


def hooks(model: Any) -> int:
    """How many hooks there are anywhere."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("architecture", CONFIGS)
def test_off_is_bit_identical_to_eager_and_removal_restores_everything(architecture: str) -> None:
    reference = logits(build(architecture, attention="eager"))
    model = build(architecture, attention="sdpa")
    keys, parameters = list(model.state_dict()), [id(p) for p in model.parameters()]
    types = [type(module) for module in model.modules()]
    quantization = calibrated(model)
    assert torch.equal(logits(model), reference)
    quantization.freeze()
    assert not torch.equal(logits(model), reference)
    quantization.off()
    assert torch.equal(logits(model), reference)
    quantization.remove()
    assert model.config._attn_implementation == "sdpa"
    assert list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == parameters
    assert [type(module) for module in model.modules()] == types
    assert hooks(model) == 0
    assert not [module for module in model.modules() if hasattr(module, "qexp_matmul_taps")]
    model.config._attn_implementation = "eager"
    assert torch.equal(logits(model), reference)


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("scheme", [Scheme(), ASYMMETRIC])
def test_frozen_learned_export_and_without_gradients_agree(architecture: str, scheme: Scheme) -> None:
    model = build(architecture)
    reference = logits(model)
    quantization = calibrated(model, scheme=scheme)
    quantization.freeze()
    frozen = logits(model)
    with torch.no_grad():
        assert torch.equal(logits(model), frozen)
        assert torch.equal(logits(model), frozen)  # weights from the cache
    with torch.inference_mode():
        assert torch.equal(logits(model), frozen)
    with torch.no_grad(), quantization.export_mode():
        torch.testing.assert_close(logits(model), frozen, rtol=0, atol=1e-6)
    assert torch.equal(logits(model), frozen)
    quantization.learn()
    assert torch.equal(logits(model), frozen)
    difference = float((frozen - reference).detach().abs().max())
    assert 0 < difference < 0.5 * float(reference.detach().abs().max()) + 0.1


def test_a_linear_layer_sees_its_quantized_input_and_weight() -> None:
    model = build("bert")
    quantization = calibrated(model)
    quantization.freeze()
    layer, observed = model.bert.encoder.layer[0].intermediate.dense, {}
    layer.register_forward_hook(lambda module, args, output: observed.update(x=args[0], y=output))
    logits(model)
    quantizers = quantization.quantizers
    weight, value = (
        quantizers[f"bert.encoder.layer.0.intermediate.dense:{k}"] for k in ("linear.weight", "linear.input")
    )
    assert torch.equal(observed["x"], fake_quantize(observed["x"], value.scale, value.zero_point, value.grid))
    original = layer.parametrizations.weight.original
    expected = fake_quantize(original, weight.scale, weight.zero_point, weight.grid)
    assert torch.equal(torch.nn.functional.linear(observed["x"], expected, layer.bias), observed["y"])


def count_calls(model: Any, quantization: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each quantizer works in one forward."""
    calls: dict[str, int] = {}
    for name, quantizer in quantization.quantizers.items():

        def counted(x: torch.Tensor, name: str = name, work: Any = quantizer._fake_quantize) -> torch.Tensor:
            calls[name] = calls.get(name, 0) + 1
            return work(x)

        monkeypatch.setattr(quantizer, "_fake_quantize", counted)
    logits(model)
    return calls


@pytest.mark.parametrize("architecture", CONFIGS)
def test_each_value_is_quantized_once_for_each_forward(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(architecture).train()
    quantization = calibrated(model)
    quantization.freeze()
    calls = count_calls(model, quantization, monkeypatch)
    assert calls == dict.fromkeys(quantization.quantizers, 1)


def test_weights_are_quantized_once_for_a_whole_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("bert")
    quantization = calibrated(model)
    quantization.freeze()
    with torch.no_grad():
        logits(model)
        calls = count_calls(model, quantization, monkeypatch)
    assert not [name for name in calls if name.endswith("linear.weight")]


def test_nothing_of_a_forward_stays_alive() -> None:
    model = build("bert")
    quantization = calibrated(model)
    quantization.learn()
    outputs = []
    model.bert.encoder.layer[0].register_forward_hook(
        lambda module, args, output: outputs.append(
            weakref.ref(output[0] if isinstance(output, tuple) else output)
        )
    )
    loss = logits(model).sum()
    assert all(quantizer._memo is None for quantizer in quantization.quantizers.values())
    del loss
    gc.collect()
    assert outputs[0]() is None


def test_a_forward_that_fails_leaves_no_memory() -> None:
    model = build("bert")
    quantization = calibrated(model)
    quantization.freeze()
    handle = model.classifier.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logits(model)
    handle.remove()
    assert all(quantizer._memo is None for quantizer in quantization.quantizers.values())


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("learned", [False, True])
def test_training_with_dropout_and_accumulation(architecture: str, learned: bool) -> None:
    model = build(architecture)
    quantization = calibrated(model)
    (quantization.learn if learned else quantization.freeze)()
    model.train()
    ranges = list(quantization.parameters())
    assert len(ranges) == (len(quantization.quantizers) if learned else 0)

    def backward() -> list[torch.Tensor]:
        torch.manual_seed(0)
        torch.nn.functional.cross_entropy(logits(model), torch.tensor([0, 1, 2])).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    once, twice = backward(), backward()
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(b, 2 * a, rtol=1e-4, atol=1e-6)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in ranges)
    weights = [
        name for name, p in model.named_parameters() if name.endswith("weight.original") and p.grad is None
    ]
    assert weights == []


def test_sharing_a_quantizer_does_not_change_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    grads = []
    for memo in (True, False):
        model = build("bert")
        calibrated(model).learn()
        if not memo:
            monkeypatch.setattr(Quantizer, "forward", Quantizer._process)
        logits(model).square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        # LSQ's factor is a constant of the tensor, so that a sum over uses is the sum of gradients.
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-3, atol=1e-5, msg=name)


def test_learning_moves_scales_and_freezing_keeps_them() -> None:
    model = build("bert").train()
    quantization = calibrated(model, Quant(weight_bits=4, activation_bits=4))
    before = quantization.ranges()
    quantization.learn()
    optimizer = torch.optim.Adam(list(quantization.parameters()), lr=0.02)
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(logits(model.eval()), torch.tensor([0, 1, 2]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with torch.no_grad():
        learned = logits(model)
    after = quantization.ranges()
    quantization.freeze()
    with torch.no_grad():
        assert torch.equal(logits(model), learned)
    assert all(torch.equal(after[key], tensor) for key, tensor in quantization.ranges().items())
    assert any(not torch.equal(after[key], before[key]) for key in before)
    assert list(quantization.parameters()) == []


@pytest.mark.parametrize("scheme", [Scheme(), ASYMMETRIC])
def test_plain_weights_and_ranges_make_the_same_model_again(tmp_path: Path, scheme: Scheme) -> None:
    model = build("bert")
    quantization = calibrated(model, scheme=scheme)
    quantization.freeze()
    expected = logits(model)
    save_file(float_state_dict(model), tmp_path / "weights.safetensors")
    save_file(quantization.ranges(), tmp_path / "ranges.safetensors")
    again = build("bert", seed=9)
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    other = insert(again, QuantizationConfig(placement=QDQBERT, scheme=scheme))
    other.load_ranges(load_file(tmp_path / "ranges.safetensors"))
    other.freeze()
    assert torch.equal(logits(again), expected)


def test_float_state_dict_has_the_names_of_the_model() -> None:
    model = build("electra-projected")
    names, values = list(model.state_dict()), {k: v.clone() for k, v in model.state_dict().items()}
    quantization = calibrated(model)
    state = float_state_dict(model)
    assert set(state) == set(names)
    assert all(torch.equal(state[name], values[name]) for name in names)
    quantization.freeze()
    with quantization.export_mode(), pytest.raises(QuantizationError, match="export form"):
        float_state_dict(model)


def test_ranges_that_do_not_fit_are_listed() -> None:
    quantization = calibrated(build("bert"))
    ranges = quantization.ranges()
    name = "classifier:linear.input/scale"
    del ranges[name]
    ranges["stranger/scale"] = torch.tensor(1.0)
    ranges["classifier:linear.weight/scale"] = torch.ones(99)
    with pytest.raises(QuantizationError) as caught:
        quantization.load_ranges(ranges)
    for part in (name, "stranger/scale", "classifier:linear.weight/scale [99] for [3]"):
        assert part in str(caught.value)


def test_calibration_without_statistics_names_the_quantizer() -> None:
    quantization = insert(build("bert"), QuantizationConfig(placement=QDQBERT))
    with pytest.raises(QuantizationError, match="no calibration statistics of"):
        quantization.calibrate(CalibrationStatistics(), MaxCalibrator(kind="max"))
    with pytest.raises(QuantizationError, match="has no range"):
        quantization.freeze()


def test_padding_does_not_enter_the_statistics() -> None:
    model = build("bert")
    quantization = insert(model, QuantizationConfig(placement=QDQBERT))
    tensors = batch()
    with torch.no_grad(), quantization.observing(tensors["attention_mask"]):
        model(**tensors)
    assert {quantizer.mode for quantizer in quantization.quantizers.values()} == {QuantizerMode.OFF}
    counted = {name: int(value.histogram.counts.sum()) for name, value in quantization.statistics().items()}
    layer, real = "bert.encoder.layer.0", 7 + 4 + 7
    assert counted[f"{layer}.attention.self.query:linear.input"] == real * 32
    assert counted[f"{layer}.attention.self:matmul.query"] == real * 32
    assert counted[f"{layer}.attention.self:matmul.probs"] == (49 + 16 + 49) * 4
    assert counted["classifier:linear.input"] == 3 * 32


def test_one_pass_serves_every_bit_width() -> None:
    model = build("bert")
    statistics = calibrated(model, Quant(weight_bits=32)).statistics()
    for quant in (Quant(weight_bits=4, activation_bits=4), Quant(activation_bits=16)):
        copied = build("bert")
        quantization = insert(copied, QuantizationConfig(placement=QDQBERT, quant=quant, scheme=ASYMMETRIC))
        quantization.calibrate(statistics, MaxCalibrator(kind="max"))
        quantization.freeze()
        assert torch.isfinite(logits(copied)).all()


def test_a_copy_of_the_model_has_its_own_quantizers() -> None:
    model = build("bert")
    quantization = calibrated(model)
    quantization.freeze()
    expected = logits(model)
    twin = copy.deepcopy(model)
    quantization.off()
    assert torch.equal(logits(twin), expected)
    assert not torch.equal(logits(model), expected)


def test_the_export_form_holds_integers() -> None:
    model = build("bert")
    quantization = calibrated(model, Quant(weight_bits=4), ASYMMETRIC)
    quantization.freeze()
    names = [name for name, _ in model.named_parameters()]
    quant_config = quantization.export_mode()
    linear = model.bert.encoder.layer[0].output.dense
    stored = linear.parametrizations.weight.original
    assert stored.dtype == torch.int8
    assert -8 <= int(stored.min()) < int(stored.max()) <= 7
    assert not [name for name, _ in model.named_parameters() if "dense" in name and "weight" in name]
    exported = torch.export.export(model, (), batch(), strict=False)
    targets = [str(node.target) for node in exported.graph.nodes]
    activations = len(quantization.quantizers) - 14
    assert targets.count("qexp.fake_quantize.default") == activations
    assert targets.count("qexp.dequantize.default") == 14
    quant_config.restore()
    assert sorted(name for name, _ in model.named_parameters()) == sorted(names)
    wide = calibrated(build("bert"), Quant(weight_bits=12))
    wide.freeze()
    wide.export_mode()
    assert wide.model.classifier.parametrizations.weight.original.dtype == torch.int16  # type: ignore[union-attr]


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_an_optimizer_step_ends_what_was_kept_of_weights(fused: bool, copied: bool) -> None:
    model = build("bert")
    calibrated(model).freeze()
    model = copy.deepcopy(model) if copied else model
    quantization = model.quantization
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, fused=fused)
    outputs = []
    for _ in range(2):
        with torch.no_grad():
            outputs.append(model(**batch()).logits)
        model(**batch(), labels=torch.tensor([0, 1, 2])).loss.backward()
        optimizer.step()
    fresh = build("bert")
    fresh.load_state_dict(float_state_dict(model))
    again = insert(fresh, QuantizationConfig(placement=QDQBERT))
    again.load_ranges(quantization.ranges())
    again.freeze()
    with torch.no_grad():
        last = model(**batch()).logits
        assert torch.equal(last, fresh(**batch()).logits)
    assert not torch.equal(last, outputs[1])
    assert not torch.equal(outputs[0], outputs[1])


def test_a_model_that_is_gone_leaves_no_hook_on_optimizers() -> None:
    gc.collect()
    quantization = calibrated(build("bert"))  # removes hooks of earlier models
    before = len(optimizer_hooks) - 1
    quantization.remove()
    assert len(optimizer_hooks) == before
    kept = calibrated(build("bert"))
    del kept
    gc.collect()
    another = calibrated(build("bert"))  # the next registration removes it
    assert len(optimizer_hooks) == before + 1
    another.remove()
    assert len(optimizer_hooks) == before
