"""Histograms by tensor operations alone, without host synchronization while batches are added.

The counts equal those of ``histogram_cpu``, on any device. Whether bins are added or merged is computed on
one-element tensors, so the host never waits for a GPU. NaN and infinity are detected when the result is read.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qexp.errors import QuantizationError
from qexp.quant.calibration.histogram import FIRST_BINS, MOST_BINS, MOST_HALF, SMALLEST_WIDTH, Histogram
from qexp.quant.calibration.padding import Padding

LONGEST_SHIFT = 17
"""Number of merges that, or more than that, leave one bin on each side."""


class TensorCounts:
    """Minimum and maximum of each batch, and one histogram of a value, on a device.

    ``counts`` always has ``MOST_BINS`` entries with zero in the middle, of which ``half`` on each side are in
    use.
    """

    def __init__(self, device: torch.device) -> None:
        self.ends: list[Tensor] = []
        self.width = torch.zeros((), dtype=torch.float64, device=device)
        self.half = torch.ones((), dtype=torch.int64, device=device)
        self.counts = torch.zeros(MOST_BINS, dtype=torch.int64, device=device)

    def add(self, value: Tensor, padding: Padding | None, *, probabilities: bool) -> None:
        """Count a batch; a batch without entries is ignored."""
        value = value.detach().to(self.counts.device, torch.float32)
        if value.numel() == 0:
            return
        keep = None if padding is None else padding.entries(value, probabilities=probabilities)
        ends = _ends(value, keep)
        self.ends.append(ends)
        finite = ends.double().nan_to_num(0.0, 0.0, 0.0)  # a batch of only padding has ends inf and -inf
        self._reach(torch.maximum(-finite[0], finite[1]).clamp(min=0.0))
        self._count(value, keep)

    def read(self) -> tuple[list[float], list[float], Histogram]:
        """Return the lows, the highs and the histogram, on the host.

        Raises:
            QuantizationError: If a value was NaN or infinite.
        """
        pairs = torch.stack(self.ends).tolist() if self.ends else []
        kept = [(low, high) for low, high in pairs if not low > high]
        for low, high in kept:
            if not (math.isfinite(low) and math.isfinite(high)):
                raise QuantizationError(f"a batch reaches from {low} to {high}")
        half = int(self.half)
        counts = self.counts[MOST_HALF - half : MOST_HALF + half].cpu().clone()
        return [low for low, _ in kept], [high for _, high in kept], Histogram(float(self.width), counts)

    def _reach(self, largest: Tensor) -> None:
        """Extend the bins as ``Histogram.reach`` does."""
        first = torch.where(largest > 0, (largest / FIRST_BINS).clamp(min=SMALLEST_WIDTH), largest)
        width = torch.where(self.width > 0, self.width, first)
        doublings = doublings_for(largest / (MOST_HALF * _divisor(width)))
        self._merge(doublings.clamp(max=LONGEST_SHIFT))
        self.width = width * power_of_two(doublings)
        needed = (largest / _divisor(self.width)).ceil().to(torch.int64)
        self.half = torch.maximum(self.half, needed)

    def _merge(self, doublings: Tensor) -> None:
        place = torch.arange(-MOST_HALF, MOST_HALF, device=self.counts.device)
        merged = torch.zeros_like(self.counts)
        merged.index_add_(0, (place >> doublings) + MOST_HALF, self.counts)
        self.counts, self.half = merged, -(-self.half >> doublings)

    def _count(self, value: Tensor, keep: Tensor | None) -> None:
        bins = (value / _divisor(self.width).to(torch.float32)).floor_().nan_to_num_(0.0)
        bins.clamp_(-self.half.to(torch.float32), self.half.to(torch.float32) - 1)
        index = bins.to(torch.int64).add_(MOST_HALF)
        weights = (
            torch.ones((), dtype=torch.int64, device=index.device) if keep is None else keep.to(torch.int64)
        )
        self.counts.scatter_add_(0, index.reshape(-1), weights.expand_as(index).reshape(-1))


def _ends(value: Tensor, keep: Tensor | None) -> Tensor:
    """Return the lowest and the highest entry that counts, float32 [2]."""
    if keep is None:
        return torch.stack(torch.aminmax(value))
    low, high = value.masked_fill(~keep, torch.inf).amin(), value.masked_fill(~keep, -torch.inf).amax()
    return torch.stack([low, high])


def _divisor(width: Tensor) -> Tensor:
    """Replace a width of 0 by 1: only zeros were observed, so any width is correct."""
    return torch.where(width > 0, width, 1.0)


def doublings_for(ratio: Tensor) -> Tensor:
    """Return the smallest ``k >= 0`` with ``ratio <= 2**k``, int64; exact."""
    mantissa, exponent = torch.frexp(ratio)
    return (exponent.to(torch.int64) - (mantissa == 0.5).to(torch.int64)).clamp(min=0)


def power_of_two(exponent: Tensor) -> Tensor:
    """Return ``2**exponent`` as float64, exact on every device, unlike ``pow`` and ``exp2``."""
    return ((exponent + 1023) << 52).view(torch.float64)
