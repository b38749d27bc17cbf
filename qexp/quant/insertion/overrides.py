"""Bit-width and scheme of each site, from the quantization config and its overrides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from qexp.config import ActivationScheme, Override, QuantizationConfig, WeightScheme
from qexp.errors import QuantizationError
from qexp.quant.insertion.discovery import Example
from qexp.quant.insertion.feed_forward import WORDS as FEED_FORWARD
from qexp.quant.insertion.feed_forward import feed_forward_sites
from qexp.quant.insertion.hooks import Key

ENDS = ("@first", "@last")
"""Patterns for the sites of the first and of the last layer."""


class OverrideResolver:
    """Resolver of the bit-width and scheme of each site.

    A value or parameter has a single quantizer, so an override that matches any of its sites applies to all
    of them. The first and the last layer are those of each stack, which is a ``ModuleList`` outside any
    other.
    """

    def __init__(
        self, model: nn.Module, quant_config: QuantizationConfig, example: Example | None = None
    ) -> None:
        self.quant_config, self._model = quant_config, model
        self._ends = _ends(model)
        wants_parts = any(glob in FEED_FORWARD for glob in quant_config.quant.overrides)
        self._parts = feed_forward_sites(model, example) if wants_parts else {}

    def weight(self, sites: Sequence[Key]) -> tuple[int, WeightScheme]:
        """Return bits and scheme of a weight with these sites."""
        quant, scheme = self.quant_config.quant, self.quant_config.scheme.weight
        bits, kinds = quant.weight_bits, {kind for kind, _ in sites}
        if "embedding.weight" in kinds:
            bits = quant.embedding_bits or bits
            scheme = self.quant_config.scheme.embedding or scheme
        if "layernorm.weight" in kinds:
            scheme = self._of_norm(sites)
        for override in self._matching(sites):
            bits, scheme = override.weight_bits or bits, override.weight or scheme
        return bits, scheme

    def _of_norm(self, sites: Sequence[Key]) -> WeightScheme:
        """Return the scheme of a norm's weight, which has a form of its own if it is a LayerNorm's."""
        scheme = self.quant_config.scheme
        modules = [self._model.get_submodule(module) for _, module in sites]
        if scheme.layernorm is not None and any(isinstance(module, nn.LayerNorm) for module in modules):
            return scheme.layernorm
        return scheme.weight.model_copy(update={"granularity": "per_tensor", "group_size": None})

    def activation(self, sites: Sequence[Key]) -> tuple[int, ActivationScheme]:
        """Return bits and scheme of an activation with these sites."""
        bits, scheme = self.quant_config.quant.activation_bits, self.quant_config.scheme.activation
        for override in self._matching(sites):
            bits, scheme = override.activation_bits or bits, override.activation or scheme
        return bits, scheme

    def check(self, sites: Iterable[Key]) -> None:
        """Check that each override matches a site.

        Raises:
            QuantizationError: If a glob matches none of the sites.
        """
        available = list(sites)
        for glob in self.quant_config.quant.overrides:
            if not any(self._matches(glob, site) for site in available):
                examples = ", ".join(f"{module}:{kind}" for kind, module in available[:3])
                raise QuantizationError(
                    f"quant.overrides: {glob!r} matches no site of placement "
                    f"{self.quant_config.placement.name}; "
                    f"sites are called as in {examples}; python -m qexp inspect lists those of a run"
                )

    def _matching(self, sites: Sequence[Key]) -> list[Override]:
        overrides = self.quant_config.quant.overrides.items()
        return [each for glob, each in overrides if any(self._matches(glob, site) for site in sites)]

    def _matches(self, glob: str, site: Key) -> bool:
        kind, module = site
        if glob in ENDS:
            return f"{module}.".startswith(self._ends[glob])
        if glob in FEED_FORWARD:
            return site in self._parts[glob]
        return fnmatchcase(module, glob) or fnmatchcase(f"{module}:{kind}", glob)


def _ends(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the name prefixes of the first and of the last layer of each stack."""
    stacks: list[tuple[str, int]] = []
    for name, module in model.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer, _ in stacks)
        if isinstance(module, nn.ModuleList) and len(module) and not inner:
            stacks.append((name, len(module)))
    firsts = tuple(f"{name}.0." for name, _ in stacks)
    lasts = tuple(f"{name}.{count - 1}." for name, count in stacks)
    return dict(zip(ENDS, (firsts, lasts), strict=True))
