"""Refinement: rounded weights lie on their grids, and corrected biases remove the mean error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qexp.config import Placement, Quant, QuantizationConfig, Scheme, WeightScheme
from qexp.errors import QuantizationError
from qexp.quant.algorithms.moments import InputMoments, InputMomentsCounter, MomentsFile
from qexp.quant.algorithms.refine import refine, rounding_method
from qexp.quant.algorithms.rounding import RoundingMethod
from qexp.quant.insertion.insert import QuantizedModel
from tests.support import sequence_models
from tests.support.smoothed_models import smoothed
from tests.support.tiny_models import NEURST, batch, build, calibrated

LINEAR = Placement(name="linear", sites=("linear.weight", "linear.input"))
LAYER = "bert.encoder.layer.1.intermediate.dense"


def moments_of(model: Any, folder: Path, *, gram: bool = True) -> Mapping[str, InputMoments]:
    """Moments over the batch."""
    counter = InputMomentsCounter(model, gram=gram)
    with torch.no_grad(), counter.observing(batch()["attention_mask"]):
        model(**batch())
    counter.save(folder / "gram.safetensors")
    return MomentsFile(folder / "gram.safetensors")


def frozen(quantization: QuantizedModel) -> QuantizedModel:
    """As it is read from its ranges."""
    quantization.freeze()
    return quantization


def refined(quantization: QuantizedModel, moments: Mapping[str, InputMoments], **more: Any) -> Any:
    """Refine, by default with nothing but what is asked for."""
    plan: dict[str, Any] = {"rounding": None, "bias_correction": False} | more
    return refine(quantization, moments, **plan)


def by_adaround(iterations: int) -> RoundingMethod | None:
    return rounding_method(iterations, None, None)


def by_gptq() -> RoundingMethod | None:
    return rounding_method(None, 0.01, True)


@pytest.mark.parametrize(("rounding", "step"), [(by_adaround(150), 1), (by_gptq(), 7)])
@pytest.mark.parametrize("with_pre_scale", [False, True])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_rounded_weights_are_on_their_grids_and_stay_there(
    granularity: Any, with_pre_scale: bool, rounding: RoundingMethod, step: int, tmp_path: Path
) -> None:
    scheme = Scheme(weight=WeightScheme(granularity=granularity))
    quant_config = QuantizationConfig(placement=LINEAR, quant=Quant(weight_bits=3), scheme=scheme)
    model = build("bert")
    moments = moments_of(model, tmp_path)
    if with_pre_scale:
        quantization = smoothed(model, tmp_path, quant_config=quant_config)
    else:
        quantization = frozen(calibrated(model, quant_config.quant, scheme, LINEAR))
    layer = model.get_submodule(LAYER)
    before = layer.parametrizations.weight.original.detach().clone()
    nearest = quantization.integers(f"{LAYER}:linear.weight")
    biases = {name: parameter.clone() for name, parameter in model.named_parameters() if "bias" in name}
    done = refined(quantization, moments, rounding=rounding)
    assert (done.rounded, done.corrected, done.left) == (14, 0, 0)
    assert 0 < done.error < 0.9
    after = layer.parametrizations.weight.original
    torch.testing.assert_close(layer.weight, after)  # quantizing changes nothing any more
    moved = (quantization.integers(f"{LAYER}:linear.weight") - nearest).abs()
    assert 0 < int(moved.max()) <= step
    assert all(torch.equal(biases[name], dict(model.named_parameters())[name]) for name in biases)
    gram, errors = moments[LAYER].gram, []
    assert gram is not None
    quantizer = quantization.quantizers[f"{LAYER}:linear.weight"]
    scale = quantizer.scale.reshape(-1, 1)
    for integers in (nearest, quantization.integers(f"{LAYER}:linear.weight")):
        back = integers * scale * (1 if quantizer.migration is None else quantizer.migration)
        error = (back - before).double()
        errors.append(float(torch.trace(error @ gram.double() @ error.T)))
    assert errors[1] < errors[0]


def test_outputs_of_layers_come_nearer(tmp_path: Path) -> None:
    """On the very tokens of the moments, where the objective is the mean squared error."""
    model = build("bert")
    moments = moments_of(model, tmp_path)
    layer, observed = model.get_submodule(LAYER), []
    handle = layer.register_forward_pre_hook(lambda module, args: observed.append(args[0].detach()))
    model(**batch())
    handle.remove()
    tokens = observed[0][batch()["attention_mask"] != 0]
    exact = torch.nn.functional.linear(tokens, layer.weight, layer.bias).detach()
    quantization = frozen(calibrated(model, Quant(weight_bits=3, activation_bits=32), placement=LINEAR))

    def error() -> float:
        with torch.no_grad():
            return float(
                (torch.nn.functional.linear(tokens, layer.weight, layer.bias) - exact).square().sum()
            )

    nearest = error()
    refined(quantization, moments, rounding=by_adaround(300))
    rounded = error()
    refined(quantization, moments, bias_correction=True)  # of weights that are on the grid: nothing is left
    assert error() == pytest.approx(rounded, rel=1e-4)
    assert rounded < 0.7 * nearest


def test_bias_correction_takes_out_the_mean_error(tmp_path: Path) -> None:
    """The analytic error, in numpy: ``b' = b + (W - Q(W)) E[x]``, after which outputs have the old mean."""
    model = build("bert")
    moments = moments_of(model, tmp_path, gram=False)
    layer = model.get_submodule(LAYER)
    weight, bias = layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()
    quantization = frozen(calibrated(model, Quant(weight_bits=2, activation_bits=32), placement=LINEAR))
    done = refined(quantization, moments, bias_correction=True)
    assert (done.rounded, done.corrected, done.left, done.error) == (0, 14, 0, None)
    mean, on_grid = moments[LAYER].mean.numpy(), layer.weight.detach().numpy()
    expected = bias + (weight.astype(np.float64) - on_grid) @ mean
    np.testing.assert_allclose(layer.bias.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        on_grid @ mean + layer.bias.detach().numpy(), weight @ mean + bias, rtol=1e-4, atol=1e-4
    )
    assert np.array_equal(layer.parametrizations.weight.original.detach().numpy(), weight)


def test_both_correct_what_rounding_left(tmp_path: Path) -> None:
    model = build("bert")
    moments = moments_of(model, tmp_path)
    layer = model.get_submodule(LAYER)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    quantization = frozen(calibrated(model, Quant(weight_bits=3), placement=LINEAR))
    refined(quantization, moments, rounding=by_adaround(50), bias_correction=True)
    mean = moments[LAYER].mean
    torch.testing.assert_close(layer.weight @ mean + layer.bias, weight @ mean + bias)


def test_tied_weights_and_tables_are_left(tmp_path: Path) -> None:
    model, tensors = sequence_models.build("marian"), sequence_models.batch(7, 6)
    counter = InputMomentsCounter(model, gram=True)
    masks = tensors["attention_mask"], tensors["decoder_attention_mask"]
    with torch.no_grad(), counter.observing(*masks):
        model(**tensors)
    counter.save(tmp_path / "gram.safetensors")
    quantization = sequence_quantized(model, tensors)
    table = model.model.shared.weight.clone()
    done = refined(quantization, MomentsFile(tmp_path / "gram.safetensors"), rounding=by_adaround(5))
    assert done.left == 1  # the output projection is the table of embeddings
    assert torch.equal(model.model.shared.weight, table)


def sequence_quantized(model: Any, tensors: Mapping[str, torch.Tensor]) -> QuantizedModel:
    """A translator with the sites of NeurST, calibrated on the batch, frozen."""
    from qexp.config import MaxCalibrator
    from qexp.quant.insertion.insert import insert

    quantization = insert(model, QuantizationConfig(placement=NEURST))
    masks = tensors["attention_mask"], tensors["decoder_attention_mask"]
    with torch.no_grad(), quantization.observing(*masks):
        model(**tensors)
    quantization.calibrate(quantization.statistics(), MaxCalibrator(kind="max"))
    return frozen(quantization)


def test_rounding_without_second_moments_is_refused(tmp_path: Path) -> None:
    model = build("bert")
    moments = moments_of(model, tmp_path, gram=False)
    quantization = frozen(calibrated(model, placement=LINEAR))
    with pytest.raises(QuantizationError, match="no second moments"):
        refined(quantization, moments, rounding=by_adaround(5))
    assert refined(quantization, {}, bias_correction=True).left == 14


def test_two_bits_are_ternary() -> None:
    model = build("bert")
    quantization = frozen(calibrated(model, Quant(weight_bits=2), placement=LINEAR))
    for site in quantization.sites:
        if site.is_weight:
            assert set(quantization.integers(site.quantizer).unique().tolist()) == {-1, 0, 1}
