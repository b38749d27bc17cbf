"""What a calibration pass remembers of each dimension of a value [B, T, H], beside the whole value.

The lowest and highest value of every batch, the sum, and a coarse histogram. A dimension's bins are a power
of two wide, twice as wide whenever a batch reaches beyond ``HALF`` of them, so that dimensions of different
ranges can be counted together by merging neighbours, each value where it would have counted had
its bins been that wide from the start. Nothing is read on the host while batches are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from qexp.quant.calibration.histogram import Histogram
from qexp.quant.calibration.histogram_torch import doublings_for, power_of_two
from qexp.quant.calibration.padding import Padding

HALF = 256
"""Bins on each side of zero: the largest magnitude of a dimension lies in the upper half of them."""
MERGES = 9
"""So many merges, or more, leave one bin on each side."""
NARROWEST = torch.finfo(torch.float32).tiny
"""A power of two."""
FIELDS = ("lows", "highs", "sums", "tokens", "widths", "counts")


@dataclass(frozen=True)
class DimensionStatistics:
    """Statistics of the dimensions of one value, on the host."""

    lows: Tensor
    """Lowest value of each batch, float32 [batches, H]."""
    highs: Tensor
    """Highest value of each batch, float32 [batches, H]."""
    sums: Tensor
    """Sums over all tokens, float64 [H]."""
    tokens: Tensor
    """How many tokens there were, int64."""
    widths: Tensor
    """Width of a dimension's bins, float64 [H]: a power of two, or 0 where only zeros were seen."""
    counts: Tensor
    """Int64 [H, 2 * HALF]; bin ``k`` holds the values with ``floor(x / width) == k - HALF``."""

    @property
    def size(self) -> int:
        """How many dimensions there are: H."""
        return len(self.widths)

    @property
    def low(self) -> Tensor:
        """Lowest value, float32 [H]."""
        return self.lows.amin(0)

    @property
    def high(self) -> Tensor:
        """Highest value, float32 [H]."""
        return self.highs.amax(0)

    @property
    def means(self) -> Tensor:
        """Mean over all tokens, float64 [H]."""
        return self.sums / self.tokens

    def ends(self, members: Tensor) -> tuple[list[float], list[float]]:
        """Lows and highs of each batch over some dimensions, by their indices, int64."""
        return self.lows[:, members].amin(1).tolist(), self.highs[:, members].amax(1).tolist()

    def histogram(self, members: Tensor) -> Histogram:
        """Counts over some dimensions, in bins as wide as the widest of theirs."""
        widths = self.widths[members]
        width = float(widths.max())
        if width == 0:
            return Histogram()
        place = _merged(torch.where(widths > 0, doublings_for(width / widths), 0))
        counts = torch.zeros(2 * HALF, dtype=torch.int64)
        return Histogram(width, counts.index_add_(0, place.flatten(), self.counts[members].flatten()))

    def tensors(self) -> dict[str, Tensor]:
        """All fields, to be written; counts as int32 where they fit."""
        fields = {name: getattr(self, name) for name in FIELDS}
        small = self.counts.numel() == 0 or int(self.counts.max()) <= torch.iinfo(torch.int32).max
        return {**fields, "counts": self.counts.int() if small else self.counts}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> DimensionStatistics:
        """What ``tensors`` gave."""
        return cls(**{name: tensors[name].long() if name == "counts" else tensors[name] for name in FIELDS})


class DimensionCounts:
    """Counts the dimensions of one value, batch by batch, on a device."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.ends: list[Tensor] = []
        self.sums = torch.zeros(size, dtype=torch.float64, device=device)
        self.tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.widths = torch.full((size,), NARROWEST, dtype=torch.float64, device=device)
        self.counts = torch.zeros(size, 2 * HALF, dtype=torch.int64, device=device)

    def add(self, value: Tensor, padding: Padding | None) -> None:
        """Count a batch [B, T, H]; NaN and infinity are left for the whole value's statistics to refuse."""
        values = value.detach().to(self.counts.device, torch.float32).nan_to_num().flatten(0, 1)
        rows = None if padding is None else padding.rows(value)
        keep = torch.ones_like(values[:, :1], dtype=torch.bool) if rows is None else rows.reshape(-1, 1)
        low, high = values.where(keep, torch.inf).amin(0), values.where(keep, -torch.inf).amax(0)
        self.ends.append(torch.stack([low, high]))
        self.sums += values.where(keep, 0.0).sum(0, dtype=torch.float64)
        self.tokens += keep.sum()
        self._reach(torch.maximum(-low, high).clamp(min=0.0))
        self._count(values, keep)

    def read(self) -> DimensionStatistics:
        """All of it, on the host."""
        size = len(self.sums)
        ends = torch.stack(self.ends).cpu() if self.ends else torch.zeros(0, 2, size)
        ends = ends[(ends[:, 0] <= ends[:, 1]).all(1)]  # but for batches of nothing but padding
        largest = ends.abs().amax((0, 1)) if len(ends) else torch.zeros(size)
        widths = torch.where(largest > 0, self.widths.cpu(), 0.0)
        lows, highs = ends.unbind(1)
        return DimensionStatistics(
            lows.contiguous(),
            highs.contiguous(),
            self.sums.cpu(),
            self.tokens.cpu(),
            widths,
            self.counts.cpu(),
        )

    def _reach(self, largest: Tensor) -> None:
        """Widen the bins of each dimension until there is one for its largest magnitude."""
        doublings = doublings_for(largest / (HALF * self.widths))
        self.widths *= power_of_two(doublings)
        merged = torch.zeros_like(self.counts)
        self.counts = merged.scatter_add_(1, _merged(doublings), self.counts)

    def _count(self, values: Tensor, keep: Tensor) -> None:
        bins = (values / self.widths.float()).floor_().clamp_(-HALF, HALF - 1).long()
        first = torch.arange(HALF, self.counts.numel(), 2 * HALF, device=bins.device)
        each = keep.long().expand_as(bins)
        self.counts.view(-1).scatter_add_(0, bins.add_(first).flatten(), each.flatten())


def _merged(doublings: Tensor) -> Tensor:
    """Where each bin of each dimension counts when it is so many times twice as wide, int64 [H, 2 * HALF]."""
    place = torch.arange(-HALF, HALF, device=doublings.device)
    return (place >> doublings.clamp(max=MERGES)[:, None]) + HALF
