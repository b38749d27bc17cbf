"""Ranges for groups of embedding dimensions (PEG: Bondarenko et al. 2021, arXiv 2109.12948, section 4).

A few dimensions of a transformer's hidden states reach far beyond all others, the same ones for all tokens.
The dimensions of a value [B, T, H] are split evenly into groups with a range each. With a permutation, they
are sorted by their range before, so that groups hold dimensions alike. The order is shared within a layer,
as an integer kernel would need it: a dimension's range is the largest of all values of that layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qexp.config import ActivationScheme, AnyCalibrator, ValueType
from qexp.errors import QuantizationError
from qexp.quant.calibration.estimators import Range, activation_range
from qexp.quant.calibration.per_dimension import DimensionStatistics
from qexp.quant.calibration.statistics import ValueStatistics
from qexp.quant.grid import Grid

LAYER = re.compile(r"[^:]*?\.\d+(?=[.:])|[^:]*")
"""Of a quantizer's name: the module up to and with its first number, else all of it."""


@dataclass(frozen=True)
class Grouping:
    """How a value's dimensions fall into groups; values with equal ones have the same groups."""

    layer: str
    width: int
    """Dimensions: H."""
    groups: int
    """At most H."""
    permute: bool
    """Whether dimensions are sorted by their ranges."""

    @classmethod
    def of(cls, name: str, width: int | None, scheme: ActivationScheme) -> Grouping | None:
        """That of a value by its quantizer's name and its dimensions; None where it has one range."""
        if scheme.granularity != "per_embedding_group" or width is None:
            return None
        layer = LAYER.match(name)
        assert layer is not None  # it matches an empty name, too
        return cls(layer[0], width, min(scheme.groups, width), scheme.permute)

    def split(self, order: Tensor) -> Tensor:
        """Group of each dimension, int64 [H], in groups that differ by one dimension at most.

        Args:
            order: the dimensions as they are split, int64 [H].
        """
        members = torch.empty(self.width, dtype=torch.int64)
        members[order] = torch.arange(self.width) * self.groups // self.width
        return members

    def natural(self) -> Tensor:
        """Groups of neighbours."""
        return self.split(torch.arange(self.width))


def members_of(
    groupings: Mapping[str, Grouping], statistics: Mapping[str, ValueStatistics]
) -> dict[str, Tensor]:
    """Group of each dimension, int64 [H], by the name of the quantizer.

    Raises:
        QuantizationError: dimensions were not counted.
    """
    seen = {name: statistics[name].dimensions for name in groupings}
    if missing := sorted(name for name, dimensions in seen.items() if dimensions is None):
        raise QuantizationError(
            f"no calibration statistics of each dimension of {missing[0]}, one of {len(missing)} values for "
            "which per_embedding_group needs them: observe again with dimensions=True"
        )
    found = {}
    for grouping in set(groupings.values()):
        names = [name for name, each in groupings.items() if each == grouping]
        members = _members(grouping, [each for name in names if (each := seen[name]) is not None])
        found.update(dict.fromkeys(names, members))
    return found


def _members(grouping: Grouping, seen: Sequence[DimensionStatistics]) -> Tensor:
    if not grouping.permute:
        return grouping.natural()
    reach = torch.stack([each.high - each.low for each in seen]).amax(0)
    return grouping.split(reach.argsort(stable=True))


def group_ranges(
    statistics: ValueStatistics,
    members: Tensor,
    calibrator: AnyCalibrator,
    grid: Grid,
    values: ValueType = "act",
) -> Range:
    """Range of each group, float64 [groups]; as that of a value that has these dimensions alone."""
    groups = [(members == group).nonzero().flatten() for group in range(int(members.max()) + 1)]
    found = [activation_range(statistics.group(each), calibrator, grid, values) for each in groups]
    lows, highs = zip(*found, strict=True)
    return torch.stack(lows), torch.stack(highs)
