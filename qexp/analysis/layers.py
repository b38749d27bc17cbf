"""A run's quantized model, layer by layer."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from qexp.analysis.find_run import Subject, gone
from qexp.errors import QuantizationError
from qexp.quant.grid import Grid, dequantize
from qexp.quant.insertion.insert import Quantization, insert
from qexp.quant.insertion.sites import Site, joined


@dataclass(frozen=True)
class Ranges:
    """Scales and zero points of a value, on the host."""

    quantizer: str
    kind: str
    grid: Grid
    scale: Tensor
    zero_point: Tensor
    shared: tuple[str, ...]
    """Other places that the value has."""

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value of the grid, over all channels."""
        ends = [torch.full_like(self.zero_point, end) for end in (self.grid.qmin, self.grid.qmax)]
        flat = Grid(self.grid.bits, self.grid.signed, self.grid.symmetric, self.grid.narrow)
        low, high = (dequantize(end, self.scale, self.zero_point, flat) for end in ends)
        return float(low.min()), float(high.max())


@dataclass(frozen=True)
class Weight(Ranges):
    """A quantized weight."""

    integers: Tensor
    """As ``Quantization.integers`` gives them."""
    low: float
    """Smallest float weight."""
    high: float
    """Largest float weight."""


@dataclass(frozen=True)
class Layer:
    """What of one module is quantized."""

    name: str
    weights: tuple[Weight, ...]
    activations: tuple[Ranges, ...]


def load(subject: Subject) -> Quantization:
    """The model with its quantizers and their ranges.

    Raises:
        StoreError: the artifact is damaged.
        QuantizationError: the ranges do not fit the model.
    """
    import transformers
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from qexp.models.loading import quiet_transformers

    try:
        architecture = json.loads((subject.model / "config.json").read_text(encoding="utf-8"))[
            "architectures"
        ][0]
        with quiet_transformers():
            kind: Any = getattr(transformers, architecture)
            model = kind.from_pretrained(subject.model, use_safetensors=True, dtype=torch.float32)
        ranges = load_file(subject.ranges)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise gone(
            subject.record, f"{subject.model.parent} is damaged ({type(error).__name__}: {error})"
        ) from error
    quantization = insert(model.eval(), subject.form)
    quantization.load_ranges(ranges)
    return quantization


def layers_of(quantization: Quantization) -> list[Layer]:
    """All modules that have a quantizer, in the order of the model."""
    places: dict[str, list[Site]] = {name: [] for name, _ in quantization.model.named_modules()}
    for site in quantization.sites:
        module = site.module if site.module in places else site.module.rpartition(".")[0]
        places[module].append(site)
    return [
        Layer(
            name,
            tuple(_weight(quantization, site) for site in sites if site.is_weight),
            tuple(Ranges(**_ranges(quantization, site)) for site in sites if not site.is_weight),
        )
        for name, sites in places.items()
        if sites
    ]


def chosen(layers: Sequence[Layer], globs: Sequence[str]) -> list[Layer]:
    """Layers whose name one of the globs matches.

    Raises:
        QuantizationError: one matches none; the message has the nearest names.
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
    """Names by how their whole and their last part resemble the glob."""
    wanted = glob.strip("*.")

    def alike(name: str) -> float:
        pairs = (name, wanted), (name.rpartition(".")[2], wanted.rpartition(".")[2])
        return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    return sorted(names, key=alike, reverse=True)[:most]


def _weight(quantization: Quantization, site: Site) -> Weight:
    from qexp.quant.insertion.weights import original

    quantizer = quantization.quantizers[site.quantizer]
    weight = quantizer.divided(original(quantization.model, site).detach())
    integers = quantization.integers(site.name)
    ends = float(weight.min()), float(weight.max())
    return Weight(**_ranges(quantization, site), integers=integers, low=ends[0], high=ends[1])


def _ranges(quantization: Quantization, site: Site) -> dict[str, Any]:
    quantizer = quantization.quantizers[site.quantizer]
    others = [each for each in quantization.sites if each.quantizer == site.quantizer and each != site]
    return {
        "quantizer": site.quantizer,
        "kind": site.kind if site.kind != "declared.weight" else joined(site.kind, site.parameter),
        "grid": quantizer.grid,
        "scale": quantizer.current_scale().detach().cpu(),
        "zero_point": quantizer.current_zero_point().cpu(),
        "shared": tuple(f"{each.module}:{each.kind}" for each in others),
    }
