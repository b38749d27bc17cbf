"""SmoothQuant: moving part of the range of activations into weights.

Xiao et al. 2023, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
Models" (arXiv 2211.10438): ``x W^T = (x / s) (s W)^T`` holds for any positive vector ``s`` over the
dimensions of x. With equation 4,

    s_j = max|x_j|^alpha / max|W_j|^(1 - alpha)

dimensions with outliers become smaller and their weights larger. The paper folds ``s`` into the LayerNorm
before the layer. In a post-norm encoder the output of the norm is also the residual, so here the quantizers
hold the factors: the quantizer of x computes ``s Q(x / s)`` and the one of W computes ``Q(s W) / s``. The
factors cancel in the product, which is the product of ``Q(x / s)`` and ``Q(s W)``. The export form omits the
factors where all weights that read the value have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qexp.errors import QuantizationError
from qexp.quant.algorithms.moments import InputMoments
from qexp.quant.insertion.sites import Site, own_linears
from qexp.quant.quantizer import Quantizer

if TYPE_CHECKING:
    from qexp.quant.insertion.quantized_model import QuantizedModel

LIMITS = (2.0**-16, 2.0**16)
"""Limits of a factor; without them a dimension that is nearly always zero would move any range."""


@dataclass(frozen=True)
class SmoothQuantSummary:
    """Counts of activations that received factors, or did not."""

    moved: int
    """Number of values whose range was partly moved into weights."""
    left: int
    """Number of inputs of linear layers that have other uses, too, or whose weights are shared."""


@torch.no_grad()
def apply_smoothquant(
    quantization: QuantizedModel, moments: Mapping[str, InputMoments], alpha: float
) -> SmoothQuantSummary:
    """Set the factors of quantizers, before statistics are collected or ranges set.

    A value receives factors if all its sites are inputs of linear layers, none of which shares its weight.

    Args:
        quantization: Quantizers of the float model, as inserted.
        moments: Moments of the inputs of its linear layers.
        alpha: Migration strength, the share of the range that moves.

    Raises:
        QuantizationError: If moments of a layer are missing, or weights with a common range read different
            values.
    """
    own = set(own_linears(quantization.model))
    moved = left = 0
    for name, sites in quantization.activations().items():
        readers = [site.module for site in sites if site.kind == "linear.input"]
        if len(readers) == len(sites) and set(readers) <= own:
            _set_factors(quantization, name, smoothing_factors(quantization.model, readers, moments, alpha))
            moved += 1
        elif readers:
            left += 1
    return SmoothQuantSummary(moved, left)


def smoothing_factors(
    model: nn.Module, readers: Sequence[str], moments: Mapping[str, InputMoments], alpha: float
) -> Tensor:
    """Compute equation 4 for the value that these layers read.

    Returns:
        Factors, float32 [in]; 1 where the value or all weights are zero.

    Raises:
        QuantizationError: If moments of a layer are missing.
    """
    missing = [reader for reader in readers if reader not in moments]
    if missing:
        raise QuantizationError(
            f"no moments of the input of {', '.join(missing)}: they come from another model; delete their "
            "folder, and run again"
        )
    layers: list[Any] = [model.get_submodule(reader) for reader in readers]
    weights = torch.stack([layer.weight.detach().abs().amax(0) for layer in layers]).amax(0)
    largest = moments[readers[0]].largest.to(weights.device)
    used = (largest > 0) & (weights > 0)
    factors = largest.pow(alpha) / weights.pow(1 - alpha)
    return factors.clamp(*LIMITS).where(used, 1.0)


def dump_smoothing_factors(quantizers: Mapping[str, Quantizer]) -> dict[str, Tensor]:
    """Return copies of all factors on the CPU, as ``<quantizer>/migration``."""
    return {
        f"{name}/migration": quantizer.migration.cpu().clone()
        for name, quantizer in quantizers.items()
        if quantizer.migration is not None
    }


def load_smoothing_factors(
    model: nn.Module,
    sites: Sequence[Site],
    quantizers: Mapping[str, Quantizer],
    tensors: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Set the factors of quantizers from tensors, and reset those without factors of the right shape to None.

    Args:
        model: Model that contains the quantizers.
        sites: Sites of the quantizers.
        quantizers: Quantizers by name.
        tensors: Tensors as returned by ``QuantizedModel.ranges``.

    Returns:
        The tensors that were not used.
    """
    linear = [site for site in sites if site.kind in ("linear.weight", "linear.input")]
    layers: dict[str, Any] = {site.quantizer: model.get_submodule(site.module) for site in linear}
    rest = dict(tensors)
    for name, quantizer in quantizers.items():
        factors = tensors.get(f"{name}/migration")
        if factors is not None and name in layers and factors.shape == (layers[name].in_features,):
            quantizer.migration = rest.pop(f"{name}/migration").to(quantizer.scale.device)
        else:
            quantizer.migration = None
    return rest


def _set_factors(quantization: QuantizedModel, name: str, factors: Tensor) -> None:
    """Set the factors of an activation's quantizer, and their inverse on the weights that read it."""
    quantizers, readers = quantization.quantizers, {site.module for site in quantization.activations()[name]}
    quantizers[name].migration = factors
    for site in quantization.sites:
        if site.kind == "linear.weight" and site.module in readers:
            quantizers[site.quantizer].migration = 1 / factors
