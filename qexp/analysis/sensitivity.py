"""Sensitivity analysis: evaluation of a quantized model with only some of its quantizers enabled."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from qexp.analysis.evaluator import Evaluator, Measurement, decibels
from qexp.analysis.mixed_precision.groups import QuantizerGroup
from qexp.reporting.charts.sensitivity import GroupLevels, Level, Sensitivity


@dataclass
class SensitivityMeasurement:
    """Sensitivity measurements of one model, complete or in progress."""

    bench: Evaluator
    found: Sensitivity
    """Results so far; they stay valid if a measurement is interrupted."""
    reference: Measurement | None = field(default=None, init=False)

    @property
    def evaluations(self) -> int:
        """Total number of evaluations that :meth:`run` needs."""
        return 2 + 2 * len(self.found.groups)

    def run(self, advance: Callable[..., None]) -> None:
        """Evaluate with no quantizers, with all, with only those of each group, and with all but those.

        Args:
            advance: Callback that receives the number of rows of each batch, and a note on the evaluation.
        """
        self.found = replace(self.found, off=self._level((), "nothing", advance))
        everything = frozenset(self.bench.quantization.quantizers)
        self.found = replace(self.found, on=self._level(everything, "everything", advance))
        for index, group in enumerate(self.found.groups):
            only = self._level(group.quantizers, f"only {group.name}", advance)
            self._put(index, replace(group, only=only))
        for index, group in enumerate(self.found.groups):
            but = self._level(everything.difference(group.quantizers), f"all but {group.name}", advance)
            self._put(index, replace(group, but=but))

    def _put(self, index: int, group: GroupLevels) -> None:
        groups = self.found.groups
        self.found = replace(self.found, groups=(*groups[:index], group, *groups[index + 1 :]))

    def _level(self, names: Collection[str], title: str, advance: Callable[..., None]) -> Level:
        self.bench.quantization.freeze(names)
        measurement = self.bench.measure(lambda rows=1: advance(rows, note=title))
        if self.reference is None:
            self.reference = measurement
        noise = measurement.noise(self.reference)
        return Level(measurement.score, noise if noise < math.inf else None, decibels(noise))


def to_measure(groups: Sequence[QuantizerGroup]) -> tuple[GroupLevels, ...]:
    """Return the groups without any results."""
    return tuple(GroupLevels(group.name, group.quantizers) for group in groups)
