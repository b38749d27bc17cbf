"""Groups of quantizers that share a bit-width in the search for mixed precision.

A quantizer belongs to exactly one group. The default grouping follows what a runtime computes at once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from qexp.quant.cost import ForwardCost, MatmulGroup
from qexp.quant.insertion.sites import Site

By = Literal["group", "layer", "kind"]
EMBEDDINGS = "embeddings"
ATTENTION = "matmul"
_NUMBERED = re.compile(r"(?:.*?\.)?\d+(?=\.|$)")
"""Pattern of a module name up to its first number, which is the name of a layer."""


@dataclass(frozen=True)
class QuantizerGroup:
    """Quantizers with common bit-widths, one for weights and one for activations."""

    name: str
    quantizers: tuple[str, ...]


def groups_of(sites: Sequence[Site], work: ForwardCost, by: By = "group") -> tuple[QuantizerGroup, ...]:
    """Partition all quantizers into groups, in the order of the sites.

    Args:
        sites: Sites of the quantized model.
        work: Cost of its forward pass.
        by: ``group``, what a runtime computes at once: a linear layer's weight with its input, all linear
            layers that read the same tensor or share a quantizer, such as queries, keys and values; the
            matmuls of one attention; all embedding tables; what a module declares; the rest by module.
            ``layer``, all of one layer of the model; ``kind``, all sites of a kind.
    """
    group_names = GROUPINGS[by](sites, work)
    members: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(site.quantizer for site in sites):
        members[group_names[name]].append(name)
    return tuple(QuantizerGroup(name, tuple(quantizers)) for name, quantizers in members.items())


@dataclass
class DisjointSets:
    """Disjoint sets of names, merged one by one."""

    parent: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """Return the representative of the set of ``name``."""
        while (parent := self.parent.setdefault(name, name)) != name:
            name = parent
        return name

    def merge(self, names: Iterable[str | None]) -> None:
        """Merge the sets of these names; None is ignored."""
        members = [name for name in names if name is not None]
        for name in members:
            self.parent[self.of(name)] = self.of(members[0])


def _by_group(sites: Sequence[Site], work: ForwardCost) -> Mapping[str, str]:
    sets = DisjointSets()
    for product in work.products:
        sets.merge(product.operands)
    for products in _reading_the_same(work.products).values():
        sets.merge(operand for product in products for operand in product.operands)
    for key, quantizers in _places(sites).items():
        if key is not None:
            sets.merge(quantizers)
    _attach_the_rest(sets, sites, work)
    return _named(sets, sites)


def _reading_the_same(products: Sequence[MatmulGroup]) -> Mapping[object, list[MatmulGroup]]:
    """Return linear layers by the tensor that they read, and the matmuls of attention by module."""
    by_input: dict[object, list[MatmulGroup]] = defaultdict(list)
    for product in products:
        by_input[product.module if product.reads is None else product.reads].append(product)
    return by_input


def _places(sites: Sequence[Site]) -> Mapping[str | None, list[str]]:
    """Return quantizers by the place of their sites; the key None holds those without a place."""
    by_place: dict[str | None, list[str]] = defaultdict(list)
    for site in sites:
        by_place[_place(site)].append(site.quantizer)
    return by_place


def _place(site: Site) -> str | None:
    adapter = site.kind.partition(".")[0]
    if adapter == "embedding":
        return EMBEDDINGS
    if adapter == "matmul" or site.kind in ("attention.scores", "attention.masked_scores"):
        return f"{site.module}:{ATTENTION}"
    if adapter == "declared":
        return site.module if site.is_weight else site.module.rpartition(".")[0]
    return None


def _attach_the_rest(sets: DisjointSets, sites: Sequence[Site], work: ForwardCost) -> None:
    """Merge quantizers without a set into the set of the linear layer that computes them, else by module."""
    grouped = {*sets.parent}
    layers = {product.module: product.operands for product in work.products if product.reads is not None}
    for module, quantizers in _by_module(sites).items():
        free = [name for name in quantizers if name not in grouped]
        sets.merge([*(layers.get(module, ())), *free])


def _by_module(sites: Sequence[Site]) -> Mapping[str, list[str]]:
    """Return quantizers by the module of their first site."""
    by_module: dict[str, list[str]] = defaultdict(list)
    for name, site in _first(sites).items():
        by_module[site.module].append(name)
    return by_module


def _named(sets: DisjointSets, sites: Sequence[Site]) -> Mapping[str, str]:
    """Return the group of each quantizer, named by its linear layers, else by its other sites."""
    members: dict[str, list[Site]] = defaultdict(list)
    for site in sites:
        members[sets.of(site.quantizer)].append(site)
    names = {root: _name(group) for root, group in members.items()}
    return {site.quantizer: names[sets.of(site.quantizer)] for site in sites}


def _name(sites: Sequence[Site]) -> str:
    if any(_place(site) == EMBEDDINGS for site in sites):
        return EMBEDDINGS  # also where the last layer shares a table
    for kinds in (("linear.weight",), ("linear.input", "attention.context")):
        if modules := [site.module for site in sites if site.kind in kinds]:
            return _braced(list(dict.fromkeys(modules)))
    return next((place for site in sites if (place := _place(site))), sites[0].module)


def _braced(modules: Sequence[str]) -> str:
    """Return ``a.{b,c}`` for ``a.b`` and ``a.c``."""
    parts = [module.split(".") for module in modules]
    shared = 0
    while len(modules) > 1 and len({tuple(each[: shared + 1]) for each in parts}) == 1:
        shared += 1
    if len(modules) == 1:
        return modules[0]
    ends = ",".join(".".join(each[shared:]) for each in parts)
    return ".".join([*parts[0][:shared], f"{{{ends}}}"])


def _by_layer(sites: Sequence[Site], work: ForwardCost) -> Mapping[str, str]:
    """Return each quantizer's layer, from the linear layer that reads the value, else from its first site."""
    read = {
        site.quantizer: site for site in reversed(sites) if site.kind in ("linear.weight", "linear.input")
    }
    return {name: layer_of(read.get(name, site).module) for name, site in _first(sites).items()}


def layer_of(module: str) -> str:
    """Return the layer that contains a module; outside of layers, the parent of the module."""
    if match := _NUMBERED.match(module):
        return match[0]
    return module.rpartition(".")[0] or module


def _by_kind(sites: Sequence[Site], work: ForwardCost) -> Mapping[str, str]:
    return {name: site.kind for name, site in _first(sites).items()}


def _first(sites: Sequence[Site]) -> dict[str, Site]:
    """Return the first site of each quantizer."""
    first: dict[str, Site] = {}
    for site in sites:
        first.setdefault(site.quantizer, site)
    return first


GROUPINGS: Mapping[By, Callable[[Sequence[Site], ForwardCost], Mapping[str, str]]] = {
    "group": _by_group,
    "layer": _by_layer,
    "kind": _by_kind,
}
