"""Put quantizers into a model."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from qexp.config import Form, SiteKind, ValueType
from qexp.errors import QuantizationError
from qexp.quant.calibration.embedding_groups import Grouping
from qexp.quant.grid import Grid, activation_grid, weight_grid
from qexp.quant.insertion.discovery import (
    Attention,
    Example,
    Value,
    attentions,
    check_example,
    discover,
    fused,
)
from qexp.quant.insertion.hooks import (
    AttentionSwitch,
    AttentionTaps,
    Handle,
    Key,
    Tap,
    attach,
    attach_declared,
)
from qexp.quant.insertion.overrides import Assignment
from qexp.quant.insertion.quantized_model import Quantization
from qexp.quant.insertion.quantized_weight import QuantizedWeight
from qexp.quant.insertion.sites import (
    ATTENTION_KINDS,
    PROJECTION_KINDS,
    WEIGHT_KINDS,
    Point,
    Site,
    Weight,
    points,
    value_type,
    weights,
)
from qexp.quant.insertion.weights import NAME, WeightHandle, float_state_dict
from qexp.quant.quantizer import Quantizer

__all__ = ["Quantization", "float_state_dict", "insert"]


def insert(model: nn.Module, form: Form, *, example: Example | None = None) -> Quantization:
    """Give every site of the form's placement a quantizer; all are off, and the model computes what it did.

    Weights become parametrizations, activations pass hooks, attention is switched to one with open
    matmul inputs (then the model computes what it does with eager attention). Sites that see the same
    tensor share a quantizer, and so do modules that share a weight, and what ``placement.fuse_qkv`` makes
    one. A quantizer is called by its first site, whatever bits it or others have; with 32 bits there is
    none. The result is a child of the model, so that it moves along with it; ``Quantization.remove``
    undoes all of it.

    With ``placement.mask_value``, attention adds that to the scores of padding also while all are off.

    Args:
        model: any module: a model of transformers, or one with layers of your own, see ``QuantModule``.
        form: which sites, bit-widths, granularity and symmetry.
        example: arguments of a forward pass, by which values are found; a language model of transformers
            needs none.

    Raises:
        QuantizationError: the model has quantizers already, does not have the sites that the placement
            asks for, or takes inputs that are not known; or an override matches no site.
    """
    if hasattr(model, NAME):
        raise QuantizationError(
            f"{type(model).__name__} has quantizers already: call its {NAME}.remove() first"
        )
    return _Insertion(model, form, example).quantization()


class _Insertion:
    """What is known of a model while quantizers are put into it."""

    def __init__(self, model: nn.Module, form: Form, example: Example | None) -> None:
        self.model, self.form, self.placement = model, form, form.placement
        self.assignment = Assignment(model, form, example)
        self.attentions = self._attentions(example)
        self.products = self._products()
        self.caught, self.values = self._values(example)

    def quantization(self) -> Quantization:
        """Make the quantizers and attach them."""
        weights_seen = [(weight.kind, weight.module) for product in self.products for weight in product]
        self.assignment.check([*weights_seen, *(key for value in self.values for key in value.sites)])
        weight_sites, quantizers = self._weight_quantizers()
        sites: list[Site] = []
        sides = {}
        for value in self.values:
            kind, module = value.sites[0]
            name = f"{module}:{kind}"
            quantizer = self._activation_quantizer(name, value)
            if quantizer is not None:
                quantizers[name], sides[name] = quantizer, (value.rows, value.columns)
                sites += [Site(kind, module, name) for kind, module in value.sites]
        quantization = Quantization(self.model, (*weight_sites, *sites), quantizers, sides)
        quantization.handles += self._parametrize(weight_sites, quantizers)
        quantization.handles += self._hook(
            {(site.kind, site.module): quantizers[site.quantizer] for site in sites}
        )
        self.model.add_module(NAME, quantization)
        return quantization

    def _attentions(self, example: Example | None) -> dict[str, Attention]:
        """The linear layers around each attention, where the placement asks for them."""
        placement = self.placement
        wanted = placement.fuse_qkv or placement.mask_value is not None
        if not wanted and not set(placement.sites) & set(PROJECTION_KINDS):
            return {}
        check_example(self.model, example)
        return attentions(self.model, example)

    def _products(self) -> list[list[Weight]]:
        """The weights, those together that are one parameter or, with ``fuse_qkv``, one matrix product."""
        one: dict[str, str] = {}
        if self.placement.fuse_qkv:
            one = {name: module for module, each in self.attentions.items() for name in each.before}
        products: dict[str | int, list[Weight]] = {}
        for weight in weights(self.model, self.placement):
            products.setdefault(one.get(weight.module, id(self._parameter(weight))), []).append(weight)
        return list(products.values())

    def _values(self, example: Example | None) -> tuple[list[Point], list[Value]]:
        """Where activations are caught, and what is caught there."""
        placement = self.placement
        if not self.form.quant.quantizes_activations or set(placement.sites) <= set(WEIGHT_KINDS):
            return [], []
        check_example(self.model, example)
        after = [each.after for each in self.attentions.values() if each.after is not None]
        caught = points(self.model, placement, list(dict.fromkeys(after)))
        values = discover(self.model, caught, placement, example)
        return caught, fused(values, self.attentions) if placement.fuse_qkv else values

    def _weight_quantizers(self) -> tuple[list[Site], dict[str, Quantizer]]:
        """Sites of the weights that have a grid, and their quantizers by the name of the first site.

        There is one for each parameter, or for a whole product where it has one range.
        """
        sites: list[Site] = []
        quantizers: dict[str, Quantizer] = {}
        for product in self.products:
            bits, scheme = self.assignment.weight([(weight.kind, weight.module) for weight in product])
            named: dict[int, Weight] = {}
            for weight in product:
                grid = weight_grid(bits, scheme, axis=weight.axis)
                if grid is None:
                    continue
                parameter = self._parameter(weight)
                first = named.setdefault(0 if grid.axis is None else id(parameter), weight)
                _check_axes(first, weight, grid)
                if first is weight:
                    channels = None if grid.axis is None else parameter.shape[grid.axis]
                    quantizers[weight.name] = Quantizer(weight.name, grid, channels)
                sites.append(Site(weight.kind, weight.module, first.name, weight.parameter))
        return sites, quantizers

    def _activation_quantizer(self, name: str, value: Value) -> Quantizer | None:
        """On the grid of what any of the value's sites knows of it."""
        types = [value_type(self.model, self.placement, *site) for site in value.sites]
        known: ValueType = next((each for each in types if each != "act"), "act")
        bits, scheme = self.assignment.activation(value.sites)
        grouping = Grouping.of(name, value.width, scheme)
        grid = activation_grid(bits, scheme, known, axis=None if grouping is None else -1)
        ceiling = self.form.scheme.clip_gelu if value.nonlinear else None
        return None if grid is None else Quantizer(name, grid, None, known, ceiling, grouping)

    def _parametrize(self, sites: Iterable[Site], quantizers: dict[str, Quantizer]) -> list[Handle]:
        handles: list[Handle] = []
        of_parameter: dict[int, QuantizedWeight] = {}
        for site in sites:
            module = self.model.get_submodule(site.module)
            parameter = getattr(module, site.parameter)
            quantized = of_parameter.setdefault(id(parameter), QuantizedWeight(quantizers[site.quantizer]))
            handles.append(WeightHandle(module, site.parameter, quantized))
        return handles

    def _hook(self, of_site: dict[Key, Quantizer]) -> list[Handle]:
        caught = [point for point in self.caught if (point.kind, point.module) in of_site]
        handles = attach(self.model, caught, of_site.__getitem__)
        handles += attach_declared(self.model, self.placement, of_site.get)
        attending = {module: None for kind, module in of_site if kind in ATTENTION_KINDS}
        if self.placement.mask_value is not None:
            attending |= dict.fromkeys(self.attentions)
        if attending:
            handles.append(AttentionSwitch(self.model))
        for name in attending:
            taps: dict[SiteKind, Tap] = {
                kind: of_site[kind, name] for kind in ATTENTION_KINDS if (kind, name) in of_site
            }
            module = self.model.get_submodule(name)
            handles.append(AttentionTaps(module, taps, self.placement.mask_value))
        return handles

    def _parameter(self, weight: Weight) -> Tensor:
        parameter: Tensor = getattr(self.model.get_submodule(weight.module), weight.parameter)
        return parameter


def _check_axes(first: Weight, weight: Weight, grid: Grid) -> None:
    if first.axis != weight.axis and grid.axis is not None:
        raise QuantizationError(
            f"{first.module} and {weight.module} share a weight, but have their channels on axis "
            f"{first.axis} and {weight.axis}: name one of them in placement.exclude, or take one range "
            "for the whole weight with scheme.weight.granularity=per_tensor"
        )
