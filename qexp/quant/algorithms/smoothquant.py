"""Range that moves from activations into weights, as SmoothQuant's.

Xiao et al. 2023, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
Models" (arXiv 2211.10438): ``x W^T = (x / s) (s W)^T`` for any positive ``s`` with one number for each
dimension of x, and with equation 4

    s_j = max|x_j|^alpha / max|W_j|^(1 - alpha)

dimensions with outliers are made smaller and their weights larger. There ``s`` goes into the LayerNorm before
the layer. In an encoder with norms behind the residual adds the norm's output is the residual too, so here
quantizers keep it: that of x computes ``s Q(x / s)`` and that of W computes ``Q(s W) / s``, whose product is
that of the integers ``Q(x / s)`` and ``Q(s W)``, since the factors cancel. In export form they are left out
where all weights that read the value have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qexp.errors import QuantizationError
from qexp.quant.algorithms.moments import Moments
from qexp.quant.insertion.sites import Site, own_linears
from qexp.quant.quantizer import Quantizer

if TYPE_CHECKING:
    from qexp.quant.insertion.quantized_model import Quantization

LIMITS = (2.0**-16, 2.0**16)
"""Of a factor: a dimension that is nearly always zero would move any range."""


@dataclass(frozen=True)
class Migrated:
    """What became of the activations that have quantizers."""

    moved: int
    """Values whose range was shared with weights."""
    left: int
    """Inputs of linear layers that are something else, too, or whose weights are."""


@torch.no_grad()
def migrate(quantization: Quantization, moments: Mapping[str, Moments], alpha: float) -> Migrated:
    """Give quantizers their factors, before statistics are collected or ranges set.

    A value takes part if all its sites are inputs of linear layers, none of which shares its weight.

    Args:
        quantization: of the float model, as inserted.
        moments: of the inputs of its linear layers.
        alpha: share of the range that moves.

    Raises:
        QuantizationError: moments of a layer are missing, or two weights with one range read two values.
    """
    own = set(own_linears(quantization.model))
    moved = left = 0
    for name, sites in quantization.activations().items():
        readers = [site.module for site in sites if site.kind == "linear.input"]
        if len(readers) == len(sites) and set(readers) <= own:
            _share(quantization, name, factors(quantization.model, readers, moments, alpha))
            moved += 1
        elif readers:
            left += 1
    return Migrated(moved, left)


def factors(model: nn.Module, readers: Sequence[str], moments: Mapping[str, Moments], alpha: float) -> Tensor:
    """Equation 4 for the value that these layers read: float32 [in]; 1 where it, or all weights, are zero.

    Raises:
        QuantizationError: moments of a layer are missing.
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
    found = largest.pow(alpha) / weights.pow(1 - alpha)
    return found.clamp(*LIMITS).where(used, 1.0)


def factors_of(quantizers: Mapping[str, Quantizer]) -> dict[str, Tensor]:
    """Copies of all factors, on the CPU, as ``<quantizer>/migration``."""
    return {
        f"{name}/migration": quantizer.migration.cpu().clone()
        for name, quantizer in quantizers.items()
        if quantizer.migration is not None
    }


def take_factors(
    model: nn.Module,
    sites: Sequence[Site],
    quantizers: Mapping[str, Quantizer],
    tensors: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Give quantizers the factors that are there for them and fit, all others none; the tensors left over.

    Args:
        model: that the quantizers are in.
        sites: of the quantizers.
        quantizers: by name.
        tensors: as ``Quantization.ranges`` gives them.
    """
    linear = [site for site in sites if site.kind in ("linear.weight", "linear.input")]
    layers: dict[str, Any] = {site.quantizer: model.get_submodule(site.module) for site in linear}
    rest = dict(tensors)
    for name, quantizer in quantizers.items():
        found = tensors.get(f"{name}/migration")
        if found is not None and name in layers and found.shape == (layers[name].in_features,):
            quantizer.migration = rest.pop(f"{name}/migration").to(quantizer.scale.device)
        else:
            quantizer.migration = None
    return rest


def _share(quantization: Quantization, name: str, found: Tensor) -> None:
    """Give an activation's quantizer its factors, and those of the weights that read it the inverse."""
    quantizers, readers = quantization.quantizers, {site.module for site in quantization.activations()[name]}
    quantizers[name].migration = found
    for site in quantization.sites:
        if site.kind == "linear.weight" and site.module in readers:
            quantizer = quantizers[site.quantizer]
            if quantizer.migration is not None and not torch.equal(quantizer.migration, 1 / found):
                raise QuantizationError(
                    f"{site.quantizer}: weights that have one range together read different values, which "
                    "need factors of their own; set placement.fuse_qkv=false, scheme=per_channel, or "
                    "refinement.migration=null"
                )
            quantizer.migration = 1 / found
