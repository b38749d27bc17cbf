"""Insertion of quantizers into a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from qexp.config import QuantizationConfig, SiteKind, ValueType
from qexp.errors import QuantizationError
from qexp.quant.calibration.embedding_groups import EmbeddingGroups
from qexp.quant.grid import activation_grid, weight_grid
from qexp.quant.insertion.attentions import AttentionLinears, attentions, functions_of, fused
from qexp.quant.insertion.coverage import check_linears, check_parameters, warn_of_floats
from qexp.quant.insertion.discovery import (
    Example,
    Value,
    check_example,
    check_kinds,
    discover,
    kinds_reached,
)
from qexp.quant.insertion.function_calls import FunctionCalls
from qexp.quant.insertion.function_taps import attach_calls
from qexp.quant.insertion.hooks import (
    AttentionSwitch,
    AttentionTaps,
    FusedTap,
    Handle,
    Key,
    Tap,
    attach,
    attach_declared,
)
from qexp.quant.insertion.overrides import OverrideResolver
from qexp.quant.insertion.quantized_model import QuantizedModel
from qexp.quant.insertion.quantized_weight import QuantizedWeight
from qexp.quant.insertion.sites import (
    ATTENTION_KINDS,
    PROJECTION_KINDS,
    WEIGHT_KINDS,
    Point,
    Site,
    WeightParameter,
    points,
    value_type,
    weights,
)
from qexp.quant.insertion.weight_ranges import check_axes, number_of_ranges
from qexp.quant.insertion.weights import NAME, WeightHandle, float_state_dict
from qexp.quant.quantizer import Quantizer

__all__ = ["QuantizedModel", "float_state_dict", "insert"]


def insert(
    model: nn.Module, quant_config: QuantizationConfig, *, example: Example | None = None
) -> QuantizedModel:
    """Insert a quantizer at every site of the placement, switched off so that the model is unchanged.

    Weights get parametrizations, activations pass through hooks, and attention is switched to an
    implementation with taps on its matmul inputs, which computes the same as eager attention. Sites that see
    the same tensor share a quantizer, and so do modules that share a weight, and values that
    ``placement.fuse_qkv`` merges. A quantizer is named after its first site, whatever the bit-widths of its
    sites; 32 bits means no quantizer. The result is a child of the model, so that it moves to other devices
    with it; ``QuantizedModel.remove`` reverts all changes.

    With ``placement.mask_value``, attention adds that value to the scores of padding even while all
    quantizers are off.

    Args:
        model: Any module: a model of transformers, or one with custom layers, see ``QuantModule``.
        quant_config: Sites, bit-widths, granularity and symmetry.
        example: Arguments of a forward pass for the discovery of values; a language model of transformers
            needs none.

    Raises:
        QuantizationError: If the model already has quantizers, lacks sites that the placement requests, or
            takes unknown inputs, or if an override matches no site.
    """
    if hasattr(model, NAME):
        raise QuantizationError(
            f"{type(model).__name__} has quantizers already: call its {NAME}.remove() first"
        )
    return _Insertion(model, quant_config, example).quantization()


class _Insertion:
    """State of the insertion of quantizers into one model."""

    def __init__(self, model: nn.Module, quant_config: QuantizationConfig, example: Example | None) -> None:
        self.model, self.quant_config, self.placement = model, quant_config, quant_config.placement
        if "linear.weight" in self.placement.sites:
            check_linears(model)
        self.assignment = OverrideResolver(model, quant_config, example)
        self.functions = self._functions(example)
        self.attentions = self._attentions(example)
        self.products = self._products()
        if "linear.weight" in self.placement.sites:
            warn_of_floats(model, self.placement)
        self.caught, self.values = self._values(example)

    def quantization(self) -> QuantizedModel:
        """Create the quantizers and attach them."""
        weights_seen = [(weight.kind, weight.module) for product in self.products for weight in product]
        self.assignment.check([*weights_seen, *(key for value in self.values for key in value.sites)])
        weight_sites, quantizers = self._weight_quantizers()
        sites: list[Site] = []
        sides = {}
        for value in self.values:
            name = value.name
            quantizer = self._activation_quantizer(name, value)
            if quantizer is not None:
                quantizers[name], sides[name] = quantizer, (value.rows, value.columns)
                sites += [Site(kind, module, name) for kind, module in value.sites]
        quantization = QuantizedModel(self.model, (*weight_sites, *sites), quantizers, sides)
        quantization.handles += self._parametrize(weight_sites, quantizers)
        quantization.handles += self._hook(
            {(site.kind, site.module): quantizers[site.quantizer] for site in sites}
        )
        self.model.add_module(NAME, quantization)
        return quantization

    def _attentions(self, example: Example | None) -> dict[str, AttentionLinears]:
        """Return the linear layers around each attention, if the placement needs them."""
        placement = self.placement
        needed = placement.fuse_qkv or placement.mask_value is not None
        if not needed and not set(placement.sites) & set(PROJECTION_KINDS):
            return {}
        check_example(self.model, example)
        found = attentions(self.model, example, self.functions)
        with_operands = {point.module for point in self.functions.operands}
        if placement.mask_value is not None and (not found or with_operands & set(found)):
            raise QuantizationError(
                f"placement.mask_value={placement.mask_value:g}: attention of {type(self.model).__name__} "
                "does not go through transformers' AttentionInterface, so its mask cannot be replaced; set "
                "placement.mask_value=null and drop attention.masked_scores, or choose placement=gemm"
            )
        if placement.fuse_qkv and not any(each.before for each in found.values()):
            raise QuantizationError(
                f"placement.fuse_qkv=true: no attention with linear layers inside was found in "
                f"{type(self.model).__name__}; set placement.fuse_qkv=false"
            )
        return found

    def _functions(self, example: Example | None) -> FunctionCalls:
        """Return the functions that compute sites of the placement, if activations are quantized."""
        if not self._quantizes_activations:
            return FunctionCalls()
        check_example(self.model, example)
        return functions_of(self.model, self.placement, example)

    @property
    def _quantizes_activations(self) -> bool:
        placement = self.placement
        of_weights = set(placement.sites) <= set(WEIGHT_KINDS) and not placement.include
        return self.quant_config.quant.quantizes_activations and not of_weights

    def _products(self) -> list[list[WeightParameter]]:
        """Group the weights that are one parameter or, with ``fuse_qkv``, one matrix product."""
        product_of: dict[str, str] = {}
        if self.placement.fuse_qkv:
            product_of = {
                name: names[0]
                for attention in self.attentions.values()
                for names in attention.before
                for name in names
            }
        products: dict[str | int, list[WeightParameter]] = {}
        chosen_weights = weights(self.model, self.placement)
        check_parameters(self.model, chosen_weights)
        for weight in chosen_weights:
            products.setdefault(product_of.get(weight.module, id(self._parameter(weight))), []).append(weight)
        return list(products.values())

    def _values(self, example: Example | None) -> tuple[list[Point], list[Value]]:
        """Return the points at which activations are observed, and the values found there."""
        placement = self.placement
        if not self._quantizes_activations:
            return [], []
        check_example(self.model, example)
        after = [each.after for each in self.attentions.values() if each.after is not None]
        projections = list(dict.fromkeys(after))
        hook_points = points(self.model, placement, projections)
        hook_points += [Point("residual.sum", name, "input") for name in self.functions.sums]
        values = discover(self.model, hook_points, placement, example, functions=self.functions)
        self._check_kinds({kind for value in values for kind, _ in value.sites}, projections, example)
        if placement.fuse_relu:
            values = [value for value in values if not _only_read_by_relu(value)]
        return hook_points, fused(values, self.attentions) if placement.fuse_qkv else values

    def _check_kinds(
        self, reached: set[SiteKind], projections: Sequence[str], example: Example | None
    ) -> None:
        """Check that the kinds of the placement without a site are those that ``placement.exclude`` took."""
        if not self.placement.exclude:
            check_kinds(reached, self.placement, self.model)
            return
        if set(self.placement.sites) - set(WEIGHT_KINDS) <= reached:
            return
        everywhere = self.placement.model_copy(update={"exclude": ()})
        functions = functions_of(self.model, everywhere, example)
        everything = points(self.model, everywhere, projections)
        everything += [Point("residual.sum", name, "input") for name in functions.sums]
        kinds = kinds_reached(self.model, everything, everywhere, example=example, functions=functions)
        check_kinds(kinds, self.placement, self.model)

    def _weight_quantizers(self) -> tuple[list[Site], dict[str, Quantizer]]:
        """Return the sites of the quantized weights, and their quantizers by the name of the first site.

        There is a quantizer for each parameter, or one for a whole product that has a single range.
        """
        sites: list[Site] = []
        quantizers: dict[str, Quantizer] = {}
        quant = self.quant_config.quant
        for product in self.products:
            bits, scheme = self.assignment.weight([(weight.kind, weight.module) for weight in product])
            named: dict[int, WeightParameter] = {}
            for weight in product:
                grid = weight_grid(bits, scheme, axis=weight.axis, number_format=quant.weight_format)
                if grid is None:
                    continue
                parameter = self._parameter(weight)
                first = named.setdefault(0 if grid.axis is None else id(parameter), weight)
                check_axes(first, weight, grid)
                if first is weight:
                    channels = number_of_ranges(weight, parameter, grid)
                    quantizers[weight.name] = Quantizer(weight.name, grid, channels)
                sites.append(Site(weight.kind, weight.module, first.name, weight.parameter))
        return sites, quantizers

    def _activation_quantizer(self, name: str, value: Value) -> Quantizer | None:
        """Create the quantizer of a value, or None at 32 bits.

        Its value type is the first among those of the value's sites that is more specific than ``act``.
        """
        types = [value_type(self.model, self.placement, *site) for site in value.sites]
        values: ValueType = next((each for each in types if each != "act"), "act")
        bits, scheme = self.assignment.activation(value.sites)
        grouping = EmbeddingGroups.of(name, value.width, scheme)
        number_format = self.quant_config.quant.activation_format
        axis = None if grouping is None else -1
        grid = activation_grid(bits, scheme, values, axis=axis, number_format=number_format)
        ceiling = self.quant_config.scheme.clip_gelu if value.nonlinear else None
        if grid is None:
            return None
        if values == "softmax":
            ceiling = self.placement.largest_probability(grid.bits)
        quantizer = Quantizer(name, grid, channels=None, values=values, ceiling=ceiling, grouping=grouping)
        quantizer.parts_of_range = tuple(dict.fromkeys(value.parts.values()))
        return quantizer

    def _parametrize(self, sites: Iterable[Site], quantizers: dict[str, Quantizer]) -> list[Handle]:
        handles: list[Handle] = []
        by_parameter: dict[int, QuantizedWeight] = {}
        for site in sites:
            module = self.model.get_submodule(site.module)
            parameter = getattr(module, site.parameter)
            quantized = by_parameter.setdefault(id(parameter), QuantizedWeight(quantizers[site.quantizer]))
            handles.append(WeightHandle(module, site.parameter, quantized))
        return handles

    def _hook(self, of_site: dict[Key, Quantizer]) -> list[Handle]:
        hook_points = [point for point in self.caught if (point.kind, point.module) in of_site]
        tap = partial(_tap_of, of_site, {site: part for v in self.values for site, part in v.parts.items()})
        handles = attach(self.model, hook_points, tap)
        handles += attach_declared(self.model, self.placement, of_site.get)
        in_functions = [point for point in self.functions.operands if (point.kind, point.name) in of_site]
        handles += attach_calls(self.model, in_functions, tap, self.functions.widths)
        keys = dict.fromkeys(of_site).keys() - {(point.kind, point.name) for point in in_functions}
        attending = {
            module: None for kind, module in of_site if kind in ATTENTION_KINDS and (kind, module) in keys
        }
        if self.placement.mask_value is not None:
            attending |= dict.fromkeys(self.attentions)
        if attending:
            handles.append(AttentionSwitch(self.model))
        for name in attending:
            taps: dict[SiteKind, Tap] = {
                kind: tap((kind, name)) for kind in ATTENTION_KINDS if (kind, name) in of_site
            }
            module = self.model.get_submodule(name)
            handles.append(AttentionTaps(module, taps, self.placement.mask_value))
        return handles

    def _parameter(self, weight: WeightParameter) -> Tensor:
        parameter: Tensor = getattr(self.model.get_submodule(weight.module), weight.parameter)
        return parameter


def _only_read_by_relu(value: Value) -> bool:
    return value.before_relu and all(kind == "linear.output" for kind, _ in value.sites)


def _tap_of(of_site: Mapping[Key, Quantizer], parts: Mapping[Key, str], key: Key) -> Tap:
    """Return the quantizer of a site; that of a fused value learns which part it sees."""
    quantizer = of_site[key]
    return FusedTap(quantizer, parts[key]) if key in parts else quantizer
