"""Calibration statistics for each dimension of a value [B, T, H], besides those of the whole value.

They are the lowest and highest value of every batch, the sum, and a coarse histogram. The bin width of a
dimension is a power of two, which doubles whenever a batch exceeds ``HALF`` bins. Dimensions with different
ranges can therefore be counted together by merging adjacent bins, with every value in the same bin as if its
bins had been that wide from the start. Nothing is read on the host while batches are added.
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
"""Number of bins on each side of zero; a dimension's largest magnitude lies in the upper half of them."""
MERGES = 9
"""Number of merges that, or more than that, leave one bin on each side."""
NARROWEST = torch.finfo(torch.float32).tiny
"""Smallest bin width, a power of two."""
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
    """Number of tokens, int64."""
    widths: Tensor
    """Bin width of each dimension, float64 [H]: a power of two, or 0 if only zeros were observed."""
    counts: Tensor
    """Counts, int64 [H, 2 * HALF]; bin ``k`` counts the values with ``floor(x / width) == k - HALF``."""

    @property
    def size(self) -> int:
        """Number of dimensions, H."""
        return len(self.widths)

    @property
    def low(self) -> Tensor:
        """Lowest value of each dimension, float32 [H]."""
        return self.lows.amin(0)

    @property
    def high(self) -> Tensor:
        """Highest value of each dimension, float32 [H]."""
        return self.highs.amax(0)

    @property
    def means(self) -> Tensor:
        """Mean of each dimension over all tokens, float64 [H]."""
        return self.sums / self.tokens

    def ends(self, members: Tensor) -> tuple[list[float], list[float]]:
        """Return the low and high of each batch over the dimensions with these indices, int64."""
        return self.lows[:, members].amin(1).tolist(), self.highs[:, members].amax(1).tolist()

    def histogram(self, members: Tensor) -> Histogram:
        """Return the histogram over the dimensions with these indices, in bins of the widest among them."""
        widths = self.widths[members]
        width = float(widths.max())
        if width == 0:
            return Histogram()
        place = _merged(torch.where(widths > 0, doublings_for(width / widths), 0))
        counts = torch.zeros(2 * HALF, dtype=torch.int64)
        return Histogram(width, counts.index_add_(0, place.flatten(), self.counts[members].flatten()))

    def tensors(self) -> dict[str, Tensor]:
        """Return all fields for saving, with counts as int32 if they fit."""
        fields = {name: getattr(self, name) for name in FIELDS}
        small = self.counts.numel() == 0 or int(self.counts.max()) <= torch.iinfo(torch.int32).max
        return {**fields, "counts": self.counts.int() if small else self.counts}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> DimensionStatistics:
        """Restore statistics from the result of ``tensors``."""
        return cls(**{name: tensors[name].long() if name == "counts" else tensors[name] for name in FIELDS})


class DimensionCounts:
    """Accumulator for the dimensions of one value, batch by batch, on a device."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.ends: list[Tensor] = []
        self.sums = torch.zeros(size, dtype=torch.float64, device=device)
        self.tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.widths = torch.full((size,), NARROWEST, dtype=torch.float64, device=device)
        self.counts = torch.zeros(size, 2 * HALF, dtype=torch.int64, device=device)

    def add(self, value: Tensor, padding: Padding | None) -> None:
        """Count a batch [B, T, H].

        NaN and infinity are replaced; the statistics of the whole value raise an error for them.
        """
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
        """Return the statistics, on the host."""
        size = len(self.sums)
        ends = torch.stack(self.ends).cpu() if self.ends else torch.zeros(0, 2, size)
        ends = ends[(ends[:, 0] <= ends[:, 1]).all(1)]  # drop batches of only padding
        largest = ends.abs().amax((0, 1)) if len(ends) else torch.zeros(size)
        widths = torch.where(largest > 0, self.widths.cpu(), 0.0)
        lows, highs = ends.unbind(1)
        return DimensionStatistics(
            lows.contiguous(),
            highs.contiguous(),
            sums=self.sums.cpu(),
            tokens=self.tokens.cpu(),
            widths=widths,
            counts=self.counts.cpu(),
        )

    def _reach(self, largest: Tensor) -> None:
        """Widen the bins of each dimension until they cover its largest magnitude."""
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
    """Return the index of each bin after its width doubles ``doublings`` times, int64 [H, 2 * HALF]."""
    place = torch.arange(-HALF, HALF, device=doublings.device)
    return (place >> doublings.clamp(max=MERGES)[:, None]) + HALF
