"""Put quantizers into a model."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize

from qexp.config import Placement, Quant, Scheme
from qexp.errors import QuantizationError
from qexp.quant.grid import Grid, activation_grid, weight_grid
from qexp.quant.hooks import (
    AttentionSwitch,
    AttentionTaps,
    Handle,
    Key,
    Tap,
    Value,
    attach,
    discover,
    wants_attention,
)
from qexp.quant.placement import MATMUL_KINDS, WEIGHT, Site, points, weights
from qexp.quant.quantization import NAME, Quantization, WeightHandle, float_state_dict
from qexp.quant.quantizer import QuantizedWeight, Quantizer

__all__ = ["Quantization", "float_state_dict", "insert"]


def insert(model: nn.Module, placement: Placement, quant: Quant, scheme: Scheme) -> Quantization:
    """Give every site of the placement a quantizer; all are off, and the model computes what it did.

    Weights become parametrizations, activations pass hooks, attention is switched to one with open
    matmul inputs (then the model computes what it does with eager attention). Sites that see the same
    tensor share a quantizer. The result is a child of the model, so that it moves along with it;
    ``Quantization.remove`` undoes all of it.

    Raises:
        QuantizationError: the model has quantizers already, or does not have the sites that the
            placement asks for.
    """
    if hasattr(model, NAME):
        raise QuantizationError(
            f"{type(model).__name__} has quantizers already: call its {NAME}.remove() first"
        )
    weight_sites, weight_quantizers = _weights(model, placement, weight_grid(quant, scheme.weight))
    grid = activation_grid(quant, scheme.activation)
    values = {} if grid is None else _values(model, placement)
    sides = {name: (value.rows, value.columns) for name, value in values.items()}
    sites = [Site(kind, module, name) for name, value in values.items() for kind, module in value.sites]
    quantizers = weight_quantizers | {name: Quantizer(name, grid) for name in values if grid}
    quantization = Quantization(model, (*weight_sites, *sites), quantizers, sides)
    for site in weight_sites:
        quantization.handles.append(_parametrize(model, site, weight_quantizers[site.quantizer]))
    if sites:
        quantization.handles += _hook(model, placement, sites, quantizers)
    model.add_module(NAME, quantization)
    return quantization


def _weights(
    model: nn.Module, placement: Placement, grid: Grid | None
) -> tuple[list[Site], dict[str, Quantizer]]:
    if grid is None:
        return [], {}
    sites = [Site(WEIGHT, module, f"{module}:{WEIGHT}") for module in weights(model, placement)]
    quantizers = {}
    for site in sites:
        rows = model.get_parameter(f"{site.module}.weight").shape[0]
        quantizers[site.quantizer] = Quantizer(site.quantizer, grid, None if grid.axis is None else rows)
    return sites, quantizers


def _values(model: nn.Module, placement: Placement) -> dict[str, Value]:
    """Activations by the name of their quantizer, which is that of their first site."""
    if set(placement.sites) == {WEIGHT}:
        return {}
    named = {}
    for value in discover(model, points(model, placement), placement):
        kind, module = value.sites[0]
        named[f"{module}:{kind}"] = value
    return named


def _parametrize(model: nn.Module, site: Site, quantizer: Quantizer) -> Handle:
    module = model.get_submodule(site.module)
    weight = QuantizedWeight(quantizer)
    parametrize.register_parametrization(module, "weight", weight)
    return WeightHandle(module, weight)


def _hook(
    model: nn.Module, placement: Placement, sites: list[Site], quantizers: dict[str, Quantizer]
) -> list[Handle]:
    of_site: dict[Key, Tap] = {(site.kind, site.module): quantizers[site.quantizer] for site in sites}
    handles = attach(model, points(model, placement), of_site.__getitem__)
    if wants_attention(placement):
        handles.append(AttentionSwitch(model))
        for name in dict.fromkeys(site.module for site in sites if site.kind in MATMUL_KINDS):
            taps = {kind: of_site[kind, name] for kind in MATMUL_KINDS if (kind, name) in of_site}
            handles.append(AttentionTaps(model.get_submodule(name), taps))
    return handles
