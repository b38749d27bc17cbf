"""Put quantizers into a model."""

from __future__ import annotations

from torch import nn

from qexp.config import Placement, Quant, Scheme, ValueType
from qexp.errors import QuantizationError
from qexp.quant.discovery import (
    Example,
    Value,
    check_example,
    discover,
    output_projections,
    wants_attention,
)
from qexp.quant.grid import activation_grid, weight_grid
from qexp.quant.hooks import AttentionSwitch, AttentionTaps, Handle, Key, Tap, attach, attach_declared
from qexp.quant.placement import (
    MATMUL_KINDS,
    PROJECTION_KINDS,
    WEIGHT_KINDS,
    Point,
    Site,
    Weight,
    points,
    value_type,
    weights,
)
from qexp.quant.quantization import Quantization
from qexp.quant.quantizer import QuantizedWeight, Quantizer
from qexp.quant.weights import NAME, WeightHandle, float_state_dict

__all__ = ["Quantization", "float_state_dict", "insert"]


def insert(
    model: nn.Module, placement: Placement, quant: Quant, scheme: Scheme, *, example: Example | None = None
) -> Quantization:
    """Give every site of the placement a quantizer; all are off, and the model computes what it did.

    Weights become parametrizations, activations pass hooks, attention is switched to one with open
    matmul inputs (then the model computes what it does with eager attention). Sites that see the same
    tensor share a quantizer, and so do modules that share a weight. The result is a child of the model,
    so that it moves along with it; ``Quantization.remove`` undoes all of it.

    Args:
        model: any module: a model of transformers, or one with layers of your own, see ``QuantModule``.
        placement: which sites.
        quant: bit-widths.
        scheme: granularity and symmetry.
        example: arguments of a forward pass, by which values are found; a language model of transformers
            needs none.

    Raises:
        QuantizationError: the model has quantizers already, does not have the sites that the placement
            asks for, or takes inputs that are not known.
    """
    if hasattr(model, NAME):
        raise QuantizationError(
            f"{type(model).__name__} has quantizers already: call its {NAME}.remove() first"
        )
    weight_sites, quantizers = _weights(model, placement, quant, scheme)
    caught, values = _values(model, placement, quant, example)
    for name, value in values.items():
        quantizers[name] = _activation_quantizer(model, placement, quant, scheme, name, value)
    sites = [Site(kind, module, name) for name, value in values.items() for kind, module in value.sites]
    sides = {name: (value.rows, value.columns) for name, value in values.items()}
    quantization = Quantization(model, (*weight_sites, *sites), quantizers, sides)
    quantization.handles += _parametrize(model, weight_sites, quantizers)
    if sites:
        quantization.handles += _hook(model, placement, caught, sites, quantizers)
    model.add_module(NAME, quantization)
    return quantization


def _weights(
    model: nn.Module, placement: Placement, quant: Quant, scheme: Scheme
) -> tuple[list[Site], dict[str, Quantizer]]:
    """Sites of the weights, and one quantizer for each parameter, by the name of its first site."""
    sites: list[Site] = []
    quantizers: dict[str, Quantizer] = {}
    of_parameter: dict[int, tuple[str, Weight]] = {}
    for weight in weights(model, placement):
        parameter = getattr(model.get_submodule(weight.module), weight.parameter)
        grid = weight_grid(quant, scheme.weight, axis=weight.axis)
        if grid is None:
            break
        name, first = of_parameter.setdefault(id(parameter), (weight.name, weight))
        if first.axis != weight.axis and grid.axis is not None:
            raise QuantizationError(
                f"{first.module} and {weight.module} share a weight, but have their channels on axis "
                f"{first.axis} and {weight.axis}: name one of them in placement.exclude, or take one range "
                "for the whole weight with scheme.weight.granularity=per_tensor"
            )
        if name not in quantizers:
            channels = None if grid.axis is None else parameter.shape[grid.axis]
            quantizers[name] = Quantizer(name, grid, channels)
        sites.append(Site(weight.kind, weight.module, name, weight.parameter))
    return sites, quantizers


def _values(
    model: nn.Module, placement: Placement, quant: Quant, example: Example | None
) -> tuple[list[Point], dict[str, Value]]:
    """Where activations are caught, and each one by the name of its quantizer: that of its first site."""
    if not quant.quantizes_activations or set(placement.sites) <= set(WEIGHT_KINDS):
        return [], {}
    check_example(model, example)
    wants_projections = set(placement.sites) & set(PROJECTION_KINDS)
    projections = output_projections(model, example) if wants_projections else []
    caught = points(model, placement, projections)
    named = {}
    for value in discover(model, caught, placement, example):
        kind, module = value.sites[0]
        named[f"{module}:{kind}"] = value
    return caught, named


def _activation_quantizer(
    model: nn.Module, placement: Placement, quant: Quant, scheme: Scheme, name: str, value: Value
) -> Quantizer:
    """On the grid of what any of the value's sites knows of it."""
    types = [value_type(model, placement, *site) for site in value.sites]
    known: ValueType = next((each for each in types if each != "act"), "act")
    grid = activation_grid(quant, scheme.activation, known)
    assert grid is not None  # without one there are no values
    return Quantizer(name, grid, values=known)


def _parametrize(model: nn.Module, sites: list[Site], quantizers: dict[str, Quantizer]) -> list[Handle]:
    shared = {site.quantizer: QuantizedWeight(quantizers[site.quantizer]) for site in sites}
    return [
        WeightHandle(model.get_submodule(site.module), site.parameter, shared[site.quantizer])
        for site in sites
    ]


def _hook(
    model: nn.Module,
    placement: Placement,
    caught: list[Point],
    sites: list[Site],
    quantizers: dict[str, Quantizer],
) -> list[Handle]:
    of_site: dict[Key, Tap] = {(site.kind, site.module): quantizers[site.quantizer] for site in sites}
    handles = attach(model, caught, of_site.__getitem__)
    handles += attach_declared(model, placement, of_site.__getitem__)
    if wants_attention(placement):
        handles.append(AttentionSwitch(model))
        for name in dict.fromkeys(site.module for site in sites if site.kind in MATMUL_KINDS):
            taps = {kind: of_site[kind, name] for kind in MATMUL_KINDS if (kind, name) in of_site}
            handles.append(AttentionTaps(model.get_submodule(name), taps))
    return handles
