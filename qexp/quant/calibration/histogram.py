"""Histogram with bins of equal width on both sides of zero.

Bin ``k`` counts the values with ``floor(x / width) == k``, divided in float32, for ``-half <= k < half``;
values of bin ``half`` count in the last one. The bins are determined as follows:

- The first batch with a non-zero value sets ``width`` to its largest magnitude divided by ``FIRST_BINS``, so
  it has that many bins on each side.
- A batch with larger magnitudes adds whole bins: ``half = ceil(largest / width)``.
- Above ``MOST_BINS`` in total, adjacent bins are merged in pairs and the width doubles, as often as needed:
  bin ``k`` becomes ``k // 2``. Dividing by twice the width halves the quotient exactly, so every value counts
  in the same bin as if the width had been the larger one from the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

FIRST_BINS = 2048
"""Number of bins on each side of zero after the first batch."""
MOST_BINS = 65536
"""Maximum number of bins on both sides together."""
MOST_HALF = MOST_BINS // 2
"""Maximum number of bins on each side."""
SMALLEST_WIDTH = torch.finfo(torch.float32).tiny


@dataclass
class Histogram:
    """Counts, int64, of ``2 * half`` bins; ``width`` is 0 until a non-zero value is observed."""

    width: float = 0.0
    counts: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))

    @property
    def half(self) -> int:
        """Number of bins on each side of zero, which is the index of the bin that begins at zero."""
        return self.counts.numel() // 2

    def edges(self) -> Tensor:
        """Return the edges of the bins, float64, one more than there are bins."""
        return torch.arange(-self.half, self.half + 1, dtype=torch.float64) * self.width

    def magnitudes(self) -> Tensor:
        """Return the counts of magnitudes, [half]; the first bin begins at zero."""
        return self.counts[self.half :] + self.counts[: self.half].flip(0)

    def reach(self, largest: float) -> None:
        """Merge and add bins until they cover ``largest``, the largest magnitude of a batch."""
        if largest <= 0:
            return
        if self.width == 0:
            self.width = max(largest / FIRST_BINS, SMALLEST_WIDTH)
        while largest > MOST_HALF * self.width:
            self._merge()
        missing = math.ceil(largest / self.width) - self.half
        if missing > 0:
            self.counts = torch.nn.functional.pad(self.counts, (missing, missing))

    def _merge(self) -> None:
        odd = self.half % 2
        even = torch.nn.functional.pad(self.counts, (odd, odd))
        self.counts, self.width = even.view(-1, 2).sum(1), self.width * 2
