"""What each site is quantized to: the form's bits and schemes, and what its overrides change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from qexp.config import ActivationScheme, Form, Override, WeightScheme
from qexp.errors import QuantizationError
from qexp.quant.insertion.discovery import Example
from qexp.quant.insertion.feed_forward import WORDS as FEED_FORWARD
from qexp.quant.insertion.feed_forward import feed_forward_sites
from qexp.quant.insertion.hooks import Key

ENDS = ("@first", "@last")
"""Words that stand for the sites of the first and of the last layer."""


class Assignment:
    """Bits and schemes by site.

    What is one value, or one parameter, has one quantizer, so an override that matches any of its sites
    is one of the whole. The first and the last layer are those of each stack: of each ``ModuleList`` that
    lies in no other.
    """

    def __init__(self, model: nn.Module, form: Form, example: Example | None = None) -> None:
        self.form = form
        self._ends = _ends(model)
        wants_parts = any(glob in FEED_FORWARD for glob in form.quant.overrides)
        self._parts = feed_forward_sites(model, example) if wants_parts else {}

    def weight(self, sites: Sequence[Key]) -> tuple[int, WeightScheme]:
        """Bits and scheme of a weight that has these sites."""
        quant, scheme = self.form.quant, self.form.scheme.weight
        bits = quant.weight_bits
        if quant.embedding_bits is not None and any(kind == "embedding.weight" for kind, _ in sites):
            bits = quant.embedding_bits
        for override in self._matching(sites):
            bits, scheme = override.weight_bits or bits, override.weight or scheme
        return bits, scheme

    def activation(self, sites: Sequence[Key]) -> tuple[int, ActivationScheme]:
        """Bits and scheme of an activation that these sites see."""
        bits, scheme = self.form.quant.activation_bits, self.form.scheme.activation
        for override in self._matching(sites):
            bits, scheme = override.activation_bits or bits, override.activation or scheme
        return bits, scheme

    def check(self, sites: Iterable[Key]) -> None:
        """Whether each override is about something.

        Raises:
            QuantizationError: a glob that matches none of the sites.
        """
        known = list(sites)
        for glob in self.form.quant.overrides:
            if not any(self._matches(glob, site) for site in known):
                examples = ", ".join(f"{module}:{kind}" for kind, module in known[:3])
                raise QuantizationError(
                    f"quant.overrides: {glob!r} matches no site of placement {self.form.placement.name}; "
                    f"sites are called as in {examples}; python -m qexp inspect lists those of a run"
                )

    def _matching(self, sites: Sequence[Key]) -> list[Override]:
        overrides = self.form.quant.overrides.items()
        return [each for glob, each in overrides if any(self._matches(glob, site) for site in sites)]

    def _matches(self, glob: str, site: Key) -> bool:
        kind, module = site
        if glob in ENDS:
            return f"{module}.".startswith(self._ends[glob])
        if glob in FEED_FORWARD:
            return site in self._parts[glob]
        return fnmatchcase(module, glob) or fnmatchcase(f"{module}:{kind}", glob)


def _ends(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Beginnings of the names in the first and in the last layer of each stack."""
    stacks: list[tuple[str, int]] = []
    for name, module in model.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer, _ in stacks)
        if isinstance(module, nn.ModuleList) and len(module) and not inner:
            stacks.append((name, len(module)))
    firsts = tuple(f"{name}.0." for name, _ in stacks)
    lasts = tuple(f"{name}.{count - 1}." for name, count in stacks)
    return dict(zip(ENDS, (firsts, lasts), strict=True))
