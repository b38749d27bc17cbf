"""Measuring which sites of a quantized model hurt: some of its quantizers on, all others off."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from qexp.analysis.evaluator import Bench, Measurement, decibels
from qexp.analysis.mixed_precision.groups import Group
from qexp.reporting.charts.sensitivity import GroupLevels, Level, Sensitivity


@dataclass
class Sweep:
    """The measurements of one bench, as far as they have come."""

    bench: Bench
    found: Sensitivity
    """What is known so far, also where a measurement was interrupted."""
    reference: Measurement | None = field(default=None, init=False)

    @property
    def evaluations(self) -> int:
        """How many there are in all."""
        return 2 + 2 * len(self.found.groups)

    def run(self, move: Callable[..., None]) -> None:
        """Nothing, everything, then only each group, then all but each group; ``move`` is told of rows."""
        self.found = replace(self.found, off=self._level((), "nothing", move))
        everything = frozenset(self.bench.quantization.quantizers)
        self.found = replace(self.found, on=self._level(everything, "everything", move))
        for index, group in enumerate(self.found.groups):
            only = self._level(group.quantizers, f"only {group.name}", move)
            self._put(index, replace(group, only=only))
        for index, group in enumerate(self.found.groups):
            but = self._level(everything.difference(group.quantizers), f"all but {group.name}", move)
            self._put(index, replace(group, but=but))

    def _put(self, index: int, group: GroupLevels) -> None:
        groups = self.found.groups
        self.found = replace(self.found, groups=(*groups[:index], group, *groups[index + 1 :]))

    def _level(self, names: Collection[str], words: str, move: Callable[..., None]) -> Level:
        self.bench.quantization.freeze(names)
        measured = self.bench.measure(lambda rows=1: move(rows, note=words))
        if self.reference is None:
            self.reference = measured
        noise = measured.noise(self.reference)
        return Level(measured.score, noise if noise < math.inf else None, decibels(noise))


def to_measure(groups: Sequence[Group]) -> tuple[GroupLevels, ...]:
    """Groups of which nothing is known yet."""
    return tuple(GroupLevels(group.name, group.quantizers) for group in groups)
