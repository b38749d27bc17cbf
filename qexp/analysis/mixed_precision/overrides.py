"""Conversion of an assignment of bit-widths to overrides with as few globs as possible."""

from __future__ import annotations

import glob
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from qexp.analysis.mixed_precision.groups import QuantizerGroup
from qexp.analysis.mixed_precision.path import Assignment, BitWidthPair
from qexp.config import Override, Quant
from qexp.quant.insertion.sites import Site


def quant_of(
    groups: Sequence[QuantizerGroup],
    assignment: Assignment,
    sites: Sequence[Site],
    kept: Mapping[str, Override] | None = None,
) -> Quant:
    """Return a quant section with the bits of the most frequent pair, and overrides for all other groups.

    Args:
        groups: Groups of all quantizers of the model.
        assignment: Pair of bit-widths of each group.
        sites: Sites of the model with all its quantizers.
        kept: Overrides of other settings than bits, which are kept.
    """
    ((usual, _),) = Counter(assignment).most_common(1)
    overrides = dict(kept or {})
    for group, pair in zip(groups, assignment, strict=True):
        for name, override in _overrides(group, pair, usual, sites):
            existing = overrides.get(name, Override())
            overrides[name] = existing.model_copy(update=override.model_dump(exclude_none=True))
    label = {"label": "searched"} if overrides else {}  # the name of a single pair is enough
    return Quant(weight_bits=usual.weight, activation_bits=usual.activation, overrides=overrides, **label)


def schemes_of(quant: Quant) -> dict[str, Override]:
    """Return the overrides of grid schemes, without bits."""
    bits = {"weight_bits": None, "activation_bits": None}
    return {
        name: each.model_copy(update=bits)
        for name, each in quant.overrides.items()
        if each.weight is not None or each.activation is not None
    }


def _overrides(
    group: QuantizerGroup, pair: BitWidthPair, usual: BitWidthPair, sites: Sequence[Site]
) -> Iterator[tuple[str, Override]]:
    weights = {site.quantizer for site in sites if site.is_weight}
    for name, quantizers in _globs(group, sites):
        weight = pair.weight if pair.weight != usual.weight and quantizers & weights else None
        activation = pair.activation if pair.activation != usual.activation and quantizers - weights else None
        if weight or activation:
            yield name, Override(weight_bits=weight, activation_bits=activation)


def _globs(group: QuantizerGroup, sites: Sequence[Site]) -> Iterator[tuple[str, set[str]]]:
    """Yield globs that match every quantizer of the group and no other, with the quantizers that they match.

    If all sites of a module belong to the group, its name is the glob.
    """
    members, remaining = {*group.quantizers}, {*group.quantizers}
    of_module: dict[str, set[str]] = defaultdict(set)
    for site in sites:
        of_module[site.module].add(site.quantizer)
    for module, quantizers in of_module.items():
        if quantizers <= members and quantizers & remaining:
            remaining -= quantizers
            yield glob.escape(module), quantizers
    for site in sites:
        if site.quantizer in remaining:
            remaining.discard(site.quantizer)
            yield glob.escape(f"{site.module}:{site.kind}"), {site.quantizer}
