"""An assignment of bits as overrides: as few globs as say it exactly."""

from __future__ import annotations

import glob
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from qexp.analysis.mixed_precision.groups import Group
from qexp.analysis.mixed_precision.path import Assignment, Pair
from qexp.config import Override, Quant
from qexp.quant.insertion.sites import Site


def quant_of(
    groups: Sequence[Group],
    assignment: Assignment,
    sites: Sequence[Site],
    kept: Mapping[str, Override] | None = None,
) -> Quant:
    """Bits of the most frequent pair, and an override for each group that has another.

    Args:
        groups: all quantizers of the model.
        assignment: a pair for each group.
        sites: of the model with all its quantizers.
        kept: overrides that say other things than bits.
    """
    ((usual, _),) = Counter(assignment).most_common(1)
    named = dict(kept or {})
    for group, pair in zip(groups, assignment, strict=True):
        for name, override in _overrides(group, pair, usual, sites):
            before = named.get(name, Override())
            named[name] = before.model_copy(update=override.model_dump(exclude_none=True))
    label = {"label": "searched"} if named else {}  # one pair for all groups needs no other name
    return Quant(weight_bits=usual.weight, activation_bits=usual.activation, overrides=named, **label)


def schemes_of(quant: Quant) -> dict[str, Override]:
    """What overrides say of grids, without their bits."""
    bits = {"weight_bits": None, "activation_bits": None}
    return {
        name: each.model_copy(update=bits)
        for name, each in quant.overrides.items()
        if each.weight is not None or each.activation is not None
    }


def _overrides(
    group: Group, pair: Pair, usual: Pair, sites: Sequence[Site]
) -> Iterator[tuple[str, Override]]:
    weights = {site.quantizer for site in sites if site.is_weight}
    for name, quantizers in _globs(group, sites):
        weight = pair.weight if pair.weight != usual.weight and quantizers & weights else None
        activation = pair.activation if pair.activation != usual.activation and quantizers - weights else None
        if weight or activation:
            yield name, Override(weight_bits=weight, activation_bits=activation)


def _globs(group: Group, sites: Sequence[Site]) -> Iterator[tuple[str, set[str]]]:
    """Globs that match every quantizer of the group and no other, each with those that it matches.

    A module's name alone does where all of its sites are of the group.
    """
    own, left = {*group.quantizers}, {*group.quantizers}
    of_module: dict[str, set[str]] = defaultdict(set)
    for site in sites:
        of_module[site.module].add(site.quantizer)
    for module, quantizers in of_module.items():
        if quantizers <= own and quantizers & left:
            left -= quantizers
            yield glob.escape(module), quantizers
    for site in sites:
        if site.quantizer in left:
            left.discard(site.quantizer)
            yield glob.escape(f"{site.module}:{site.kind}"), {site.quantizer}
