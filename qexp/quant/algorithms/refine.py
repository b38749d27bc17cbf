"""Weights and biases of a calibrated model, made better without training.

Rounding by second moments (``quant.rounding``) puts the weights of linear layers onto their grids, where
rounding to the nearest leaves them. Bias correction (Nagel et al. 2019, arXiv 1906.04721, section 4.2)
takes the mean of the error that quantized weights make out of the bias: ``b += (W - Q(W)) E[x]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from qexp.errors import QuantizationError
from qexp.quant.algorithms.adaround import adaround
from qexp.quant.algorithms.moments import Moments
from qexp.quant.insertion.quantized_model import Quantization
from qexp.quant.insertion.sites import Site, own_linears
from qexp.quant.insertion.weights import original

Rounding = Literal["nearest", "adaround"]


@dataclass
class Refined:
    """What was done to linear layers."""

    rounded: int = 0
    """Weights that were rounded by their second moments."""
    corrected: int = 0
    """Biases that were corrected."""
    left: int = 0
    """Quantized linear layers that share a weight, or do not run: they stay as they are."""
    error: float | None = None
    """Mean over the rounded weights: squared error of a layer's output, over that with nearest levels."""


@torch.no_grad()
def refine(
    quantization: Quantization,
    moments: Mapping[str, Moments],
    *,
    rounding: Rounding,
    iterations: int | None,
    bias_correction: bool,
    move: Callable[[], None] = lambda: None,
) -> Refined:
    """Change the float weights and biases of the quantization's model, in place.

    Args:
        quantization: with ranges, frozen.
        moments: of the inputs of the model's linear layers.
        rounding: ``nearest`` leaves weights as they are.
        iterations: steps of ``adaround``.
        bias_correction: whether biases change.
        move: called after each layer.

    Raises:
        QuantizationError: there are no second moments to round by.
    """
    done, shares = Refined(), []
    own = set(own_linears(quantization.model))
    for site in linear_weights(quantization):
        if site.module in own and site.module in moments:
            moment, weight = moments[site.module], original(quantization.model, site)
            before = weight.clone()
            if rounding == "adaround":
                assert iterations is not None
                shares.append(_round(quantization, site, moment, iterations))
                done.rounded += 1
            if bias_correction:
                done.corrected += _correct(quantization, site, before, moment)
        else:
            done.left += 1
        move()
    done.error = sum(shares) / len(shares) if shares else None
    return done


def linear_weights(quantization: Quantization) -> list[Site]:
    """The sites of all quantized weights of linear layers."""
    return [site for site in quantization.sites if site.kind == "linear.weight"]


def _round(quantization: Quantization, site: Site, moment: Moments, iterations: int) -> float:
    """Put a weight onto its grid; what is left of the error of nearest levels."""
    if moment.gram is None:
        raise QuantizationError(
            f"{site.module}: no second moments of its input, by which AdaRound rounds; delete the folder of "
            "the moments, and run again"
        )
    weight, quantizer = original(quantization.model, site), quantization.quantizers[site.quantizer]
    gram = moment.gram.to(weight.device)
    factors = quantizer.migration
    if factors is not None:  # what is on the grid is W / factors, and it meets x * factors
        gram = gram * factors * factors[:, None]
    found = adaround(
        quantizer.divided(weight), quantizer.scale, quantizer.zero_point, quantizer.grid, gram, iterations
    )
    weight.copy_(found.weight if factors is None else found.weight * factors)
    return found.error / found.nearest if found.nearest > 0 else 1.0


def _correct(quantization: Quantization, site: Site, before: Tensor, moment: Moments) -> int:
    """Correct a bias, if there is one; how many were corrected."""
    layer: Any = quantization.model.get_submodule(site.module)
    if layer.bias is None:
        return 0
    layer.bias.add_((before - layer.weight) @ moment.mean.to(before.device))
    return 1
