"""Sites that share their precision: what a search of bit-widths moves together.

A quantizer is never divided. Which of them belong together is a matter of what a runtime computes at once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from qexp.quant.cost import Product, Work
from qexp.quant.insertion.sites import Site

By = Literal["group", "layer", "kind"]
EMBEDDINGS = "embeddings"
ATTENTION = "matmul"
_NUMBERED = re.compile(r"(?:.*?\.)?\d+(?=\.|$)")
"""A name up to its first number: that of a layer."""


@dataclass(frozen=True)
class Group:
    """Quantizers that have the same bits, weights and activations each."""

    name: str
    quantizers: tuple[str, ...]


def groups_of(sites: Sequence[Site], work: Work, by: By = "group") -> tuple[Group, ...]:
    """Every quantizer in one group, in the order of the sites.

    Args:
        sites: of the quantized model.
        work: of the same.
        by: ``group``, what a runtime computes at once: a linear layer's weight with its input, all linear
            layers that read the same tensor or share a quantizer, such as queries, keys and values; the
            products of one attention; all tables of embeddings; what a module declares; the rest by module.
            ``layer``, all of one layer of the model; ``kind``, all sites of a kind.
    """
    together = GROUPINGS[by](sites, work)
    members: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(site.quantizer for site in sites):
        members[together[name]].append(name)
    return tuple(Group(name, tuple(quantizers)) for name, quantizers in members.items())


@dataclass
class Sets:
    """Disjoint sets of names, merged one by one."""

    parent: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """The name that stands for its set."""
        while (above := self.parent.setdefault(name, name)) != name:
            name = above
        return name

    def merge(self, names: Iterable[str | None]) -> None:
        """Put the sets of these names together; None is passed over."""
        known = [name for name in names if name is not None]
        for name in known:
            self.parent[self.of(name)] = self.of(known[0])


def _by_group(sites: Sequence[Site], work: Work) -> Mapping[str, str]:
    sets = Sets()
    for product in work.products:
        sets.merge(product.operands)
    for products in _reading_the_same(work.products).values():
        sets.merge(operand for product in products for operand in product.operands)
    for key, quantizers in _places(sites).items():
        if key is not None:
            sets.merge(quantizers)
    _attach_the_rest(sets, sites, work)
    return _named(sets, sites)


def _reading_the_same(products: Sequence[Product]) -> Mapping[object, list[Product]]:
    """Linear layers by the tensor that they read, and products of attention by module."""
    found: dict[object, list[Product]] = defaultdict(list)
    for product in products:
        found[product.module if product.reads is None else product.reads].append(product)
    return found


def _places(sites: Sequence[Site]) -> Mapping[str | None, list[str]]:
    """Quantizers that belong together for where they are; None holds those that say nothing of it."""
    found: dict[str | None, list[str]] = defaultdict(list)
    for site in sites:
        found[_place(site)].append(site.quantizer)
    return found


def _place(site: Site) -> str | None:
    family = site.kind.partition(".")[0]
    if family == "embedding":
        return EMBEDDINGS
    if family == "matmul" or site.kind in ("attention.scores", "attention.masked_scores"):
        return f"{site.module}:{ATTENTION}"
    if family == "declared":
        return site.module if site.is_weight else site.module.rpartition(".")[0]
    return None


def _attach_the_rest(sets: Sets, sites: Sequence[Site], work: Work) -> None:
    """Values that nothing holds go to the linear layer that gives them, else together by module."""
    held = {*sets.parent}
    layers = {product.module: product.operands for product in work.products if product.reads is not None}
    for module, quantizers in _by_module(sites).items():
        free = [name for name in quantizers if name not in held]
        sets.merge([*(layers.get(module, ())), *free])


def _by_module(sites: Sequence[Site]) -> Mapping[str, list[str]]:
    """Quantizers by the module of their first site."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, site in _first(sites).items():
        found[site.module].append(name)
    return found


def _named(sets: Sets, sites: Sequence[Site]) -> Mapping[str, str]:
    """Each quantizer's group, called by its linear layers, else by what else is in it."""
    members: dict[str, list[Site]] = defaultdict(list)
    for site in sites:
        members[sets.of(site.quantizer)].append(site)
    names = {root: _name(of) for root, of in members.items()}
    return {site.quantizer: names[sets.of(site.quantizer)] for site in sites}


def _name(sites: Sequence[Site]) -> str:
    if any(_place(site) == EMBEDDINGS for site in sites):
        return EMBEDDINGS  # also where the last layer shares a table
    for kinds in (("linear.weight",), ("linear.input", "attention.context")):
        if modules := [site.module for site in sites if site.kind in kinds]:
            return _braced(list(dict.fromkeys(modules)))
    return next((place for site in sites if (place := _place(site))), sites[0].module)


def _braced(modules: Sequence[str]) -> str:
    """``a.{b,c}`` for ``a.b`` and ``a.c``."""
    parts = [module.split(".") for module in modules]
    shared = 0
    while len(modules) > 1 and len({tuple(each[: shared + 1]) for each in parts}) == 1:
        shared += 1
    if len(modules) == 1:
        return modules[0]
    ends = ",".join(".".join(each[shared:]) for each in parts)
    return ".".join([*parts[0][:shared], f"{{{ends}}}"])


def _by_layer(sites: Sequence[Site], work: Work) -> Mapping[str, str]:
    """A value that two layers see belongs to the linear layer that reads it, else to where it is first."""
    read = {
        site.quantizer: site for site in reversed(sites) if site.kind in ("linear.weight", "linear.input")
    }
    return {name: layer_of(read.get(name, site).module) for name, site in _first(sites).items()}


def layer_of(module: str) -> str:
    """The layer that a module is in; beside the layers, what it is a part of."""
    if found := _NUMBERED.match(module):
        return found[0]
    return module.rpartition(".")[0] or module


def _by_kind(sites: Sequence[Site], work: Work) -> Mapping[str, str]:
    return {name: site.kind for name, site in _first(sites).items()}


def _first(sites: Sequence[Site]) -> dict[str, Site]:
    """The first site of each quantizer."""
    found: dict[str, Site] = {}
    for site in sites:
        found.setdefault(site.quantizer, site)
    return found


GROUPINGS: Mapping[By, Callable[[Sequence[Site], Work], Mapping[str, str]]] = {
    "group": _by_group,
    "layer": _by_layer,
    "kind": _by_kind,
}
