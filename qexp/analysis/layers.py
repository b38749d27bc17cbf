"""Weights and ranges of a run's quantized model, layer by layer."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from qexp.analysis.find_run import QuantizedRun, missing_artifact_error
from qexp.errors import QuantizationError
from qexp.quant.grid import Grid, dequantize
from qexp.quant.insertion.insert import QuantizedModel, insert
from qexp.quant.insertion.sites import Site, joined


@dataclass(frozen=True)
class LayerRanges:
    """Scales and zero points of a quantized value, on the CPU."""

    quantizer: str
    kind: str
    grid: Grid
    scale: Tensor
    zero_point: Tensor
    shared: tuple[str, ...]
    """Other sites of the same quantizer, as ``module:kind``."""

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest representable value, over all channels."""
        ends = [torch.full_like(self.zero_point, end) for end in (self.grid.qmin, self.grid.qmax)]
        flat = Grid(self.grid.bits, self.grid.signed, self.grid.symmetric, self.grid.narrow)
        low, high = (dequantize(end, self.scale, self.zero_point, flat) for end in ends)
        return float(low.min()), float(high.max())


@dataclass(frozen=True)
class LayerWeight(LayerRanges):
    """Quantized weight: its ranges, its integers and the limits of its float values."""

    integers: Tensor
    """Integers of the weight, as ``QuantizedModel.integers`` returns them."""
    low: float
    """Smallest float weight."""
    high: float
    """Largest float weight."""


@dataclass(frozen=True)
class QuantizedLayer:
    """Quantized weights and activations of one module."""

    name: str
    weights: tuple[LayerWeight, ...]
    activations: tuple[LayerRanges, ...]


def load(subject: QuantizedRun) -> QuantizedModel:
    """Load a model, insert its quantizers and load their ranges.

    Raises:
        StoreError: If the artifact is damaged.
        QuantizationError: If the ranges do not fit the model.
    """
    import transformers
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from qexp.models.loading import quiet_transformers

    try:
        architecture = json.loads((subject.encoder.model / "config.json").read_text(encoding="utf-8"))[
            "architectures"
        ][0]
        with quiet_transformers():
            kind: Any = getattr(transformers, architecture)
            model = kind.from_pretrained(
                subject.encoder.model, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
            )
        ranges = load_file(subject.ranges.file)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise missing_artifact_error(
            subject.record, f"{subject.encoder.model.parent} is damaged ({type(error).__name__}: {error})"
        ) from error
    quantization = insert(model.eval(), subject.quant_config)
    quantization.load_ranges(ranges)
    return quantization


def layers_of(quantization: QuantizedModel) -> list[QuantizedLayer]:
    """Return all modules that have a quantizer, in the order of the model."""
    places: dict[str, list[Site]] = {name: [] for name, _ in quantization.model.named_modules()}
    for site in quantization.sites:
        module = site.module if site.module in places else site.module.rpartition(".")[0]
        places[module].append(site)
    return [
        QuantizedLayer(
            name,
            tuple(_weight(quantization, site) for site in sites if site.is_weight),
            tuple(LayerRanges(**_ranges(quantization, site)) for site in sites if not site.is_weight),
        )
        for name, sites in places.items()
        if sites
    ]


def chosen(layers: Sequence[QuantizedLayer], globs: Sequence[str]) -> list[QuantizedLayer]:
    """Return the layers whose name matches any of the globs.

    Raises:
        QuantizationError: If a glob matches no layer; the message lists the nearest names.
    """
    names = [layer.name for layer in layers]
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            raise QuantizationError(
                f"--layer {glob}: no quantized layer of that name; the nearest are "
                f"{', '.join(_nearest(glob, names))}. A glob matches the whole name, as '*.query' does; "
                "without --layer all are listed"
            )
    return [layer for layer in layers if any(fnmatchcase(layer.name, glob) for glob in globs)]


def _nearest(glob: str, names: Sequence[str], most: int = 5) -> list[str]:
    """Return the names most similar to the glob, by the whole name and by its last component."""
    query = glob.strip("*.")

    def similarity(name: str) -> float:
        pairs = (name, query), (name.rpartition(".")[2], query.rpartition(".")[2])
        return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    return sorted(names, key=similarity, reverse=True)[:most]


def _weight(quantization: QuantizedModel, site: Site) -> LayerWeight:
    from qexp.quant.insertion.weights import original

    quantizer = quantization.quantizers[site.quantizer]
    weight = quantizer.pre_scaled(original(quantization.model, site).detach())
    integers = quantization.integers(site.name)
    ends = float(weight.min()), float(weight.max())
    return LayerWeight(**_ranges(quantization, site), integers=integers, low=ends[0], high=ends[1])


def _ranges(quantization: QuantizedModel, site: Site) -> dict[str, Any]:
    quantizer = quantization.quantizers[site.quantizer]
    others = [other for other in quantization.sites if other.quantizer == site.quantizer and other != site]
    return {
        "quantizer": site.quantizer,
        "kind": site.kind if site.kind != "declared.weight" else joined(site.kind, site.parameter),
        "grid": quantizer.integer_grid,
        "scale": quantizer.current_scale().detach().cpu(),
        "zero_point": quantizer.current_zero_point().cpu(),
        "shared": tuple(f"{other.module}:{other.kind}" for other in others),
    }
