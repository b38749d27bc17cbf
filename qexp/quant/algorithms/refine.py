"""Refinement of the weights and biases of a calibrated model, without training.

Rounding by second moments (``refinement.rounding``) moves the weights of linear layers onto their grids,
where rounding to the nearest level keeps them. Bias correction is in
:mod:`qexp.quant.algorithms.bias_correction`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from qexp.errors import QuantizationError
from qexp.quant.algorithms.adaround import adaround
from qexp.quant.algorithms.bias_correction import correct_bias
from qexp.quant.algorithms.gptq import gptq
from qexp.quant.algorithms.moments import InputMoments
from qexp.quant.algorithms.rounding import RoundingMethod, RoundingResult
from qexp.quant.insertion.quantized_model import QuantizedModel
from qexp.quant.insertion.sites import Site, own_linears
from qexp.quant.insertion.weights import original


@dataclass
class RefinementSummary:
    """Counts and error of a refinement."""

    rounded: int = 0
    """Number of weights rounded by the second moments of their inputs."""
    corrected: int = 0
    """Number of corrected biases."""
    left: int = 0
    """Number of quantized linear layers left unchanged, because they share a weight or do not run."""
    error: float | None = None
    """Squared output error of a layer relative to nearest rounding, averaged over the rounded weights."""
    damping: float | None = None
    """Largest damping of GPTQ's Hessians, above the requested one where that was not positive definite."""


@torch.no_grad()
def refine(
    quantization: QuantizedModel,
    moments: Mapping[str, InputMoments],
    *,
    rounding: RoundingMethod | None,
    bias_correction: bool,
    advance: Callable[[], None] = lambda: None,
) -> RefinementSummary:
    """Refine the float weights and biases of a quantized model in place.

    Args:
        quantization: Quantizers with ranges, frozen.
        moments: Moments of the inputs of the model's linear layers.
        rounding: Rounding by second moments; None leaves the weights unchanged, hence at nearest levels.
        bias_correction: Whether to correct biases.
        advance: Function called after each layer.

    Raises:
        QuantizationError: If rounding is requested and there are no second moments.
    """
    summary, rounded = RefinementSummary(), []
    own = set(own_linears(quantization.model))
    for site in linear_weights(quantization):
        if site.module in own and site.module in moments:
            moment, weight = moments[site.module], original(quantization.model, site)
            before = weight.clone()
            if rounding is not None:
                rounded.append(_round(quantization, site, moment, rounding))
            if bias_correction:
                summary.corrected += correct_bias(quantization.model, site, before, moment.mean)
        else:
            summary.left += 1
        advance()
    if rounded:
        summary.rounded = len(rounded)
        summary.error = sum(each.ratio for each in rounded) / len(rounded)
        summary.damping = max((each.damping for each in rounded if each.damping is not None), default=None)
    return summary


def rounding_method(
    iterations: int | None, damping: float | None, activation_order: bool | None
) -> RoundingMethod | None:
    """Return AdaRound if there are iterations, GPTQ if there is a damping, else None."""
    if iterations is not None:
        return partial(adaround, iterations=iterations)
    if damping is not None:
        return partial(gptq, damping=damping, activation_order=bool(activation_order))
    return None


def linear_weights(quantization: QuantizedModel) -> list[Site]:
    """Return the sites of all quantized weights of linear layers."""
    return [site for site in quantization.sites if site.kind == "linear.weight"]


def _round(
    quantization: QuantizedModel, site: Site, moment: InputMoments, rounding: RoundingMethod
) -> RoundingResult:
    """Round a weight onto its grid."""
    if moment.gram is None:
        raise QuantizationError(
            f"{site.module}: no second moments of its input, by which to round; delete the folder of the "
            "moments, and run again"
        )
    weight, quantizer = original(quantization.model, site), quantization.quantizers[site.quantizer]
    gram = moment.gram.to(weight.device)
    factors = quantizer.migration
    if factors is not None:  # the grid holds W / factors, which multiplies x * factors
        gram = gram * factors * factors[:, None]
    pre_scaled, grid = quantizer.pre_scaled(weight), quantizer.integer_grid
    result = rounding(pre_scaled, quantizer.scale, quantizer.zero_point, grid=grid, gram=gram)
    weight.copy_(result.weight if factors is None else result.weight * factors)
    return result
