"""Ranges for groups of embedding dimensions (PEG: Bondarenko et al. 2021, arXiv 2109.12948, section 4).

A few dimensions of a transformer's hidden states have far larger values than all others, and they are the
same for all tokens. The dimensions of a value [B, T, H] are split evenly into groups with a range each. With
a permutation they are first sorted by range, so that a group holds similar dimensions. The order is shared
within a layer, as an integer kernel would require: the range of a dimension is the largest over all values of
the layer.
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
from qexp.quant.grid import AnyGrid

LAYER = re.compile(r"[^:]*?\.\d+(?=[.:])|[^:]*")
"""Layer prefix of a quantizer name: the module path up to and including its first number, else all of it."""


@dataclass(frozen=True)
class EmbeddingGroups:
    """Grouping of a value's dimensions; values with equal instances have the same groups."""

    layer: str
    width: int
    """Number of dimensions, H."""
    groups: int
    """Number of groups, at most H."""
    permute: bool
    """Whether dimensions are sorted by their ranges."""

    @classmethod
    def of(cls, name: str, width: int | None, scheme: ActivationScheme) -> EmbeddingGroups | None:
        """Return the grouping of a value by quantizer name and width, or None if it has a single range."""
        if scheme.granularity != "per_embedding_group" or width is None:
            return None
        match = LAYER.match(name)
        assert match is not None  # the pattern matches an empty name, too
        return cls(match[0], width, min(scheme.groups, width), scheme.permute)

    def split(self, order: Tensor) -> Tensor:
        """Split the dimensions into groups whose sizes differ by at most one.

        Args:
            order: Order in which the dimensions are split, int64 [H].

        Returns:
            Group of each dimension, int64 [H].
        """
        members = torch.empty(self.width, dtype=torch.int64)
        members[order] = torch.arange(self.width) * self.groups // self.width
        return members

    def natural(self) -> Tensor:
        """Return the groups of adjacent dimensions, int64 [H]."""
        return self.split(torch.arange(self.width))


def members_of(
    groupings: Mapping[str, EmbeddingGroups], statistics: Mapping[str, ValueStatistics]
) -> dict[str, Tensor]:
    """Return the group of each dimension, int64 [H], by quantizer name.

    Raises:
        QuantizationError: If statistics of the dimensions were not collected.
    """
    seen = {name: statistics[name].dimensions for name in groupings}
    if missing := sorted(name for name, dimensions in seen.items() if dimensions is None):
        raise QuantizationError(
            f"no calibration statistics of each dimension of {missing[0]}, one of {len(missing)} values for "
            "which per_embedding_group needs them: observe again with dimensions=True"
        )
    groups = {}
    for grouping in set(groupings.values()):
        names = [name for name, each in groupings.items() if each == grouping]
        members = _members(grouping, [each for name in names if (each := seen[name]) is not None])
        groups.update(dict.fromkeys(names, members))
    return groups


def _members(grouping: EmbeddingGroups, seen: Sequence[DimensionStatistics]) -> Tensor:
    if not grouping.permute:
        return grouping.natural()
    reach = torch.stack([each.high - each.low for each in seen]).amax(0)
    return grouping.split(reach.argsort(stable=True))


def group_ranges(
    statistics: ValueStatistics,
    members: Tensor,
    calibrator: AnyCalibrator,
    grid: AnyGrid,
    values: ValueType = "act",
) -> Range:
    """Return the range of each group, float64 [groups], as for a value with only these dimensions."""
    groups = [(members == group).nonzero().flatten() for group in range(int(members.max()) + 1)]
    ranges = [activation_range(statistics.group(each), calibrator, grid, values) for each in groups]
    lows, highs = zip(*ranges, strict=True)
    return torch.stack(lows), torch.stack(highs)
