"""Counts of values in equally wide bins on both sides of zero.

Bin ``k`` holds the values with ``floor(x / width) == k``, divided in float32, for ``-half <= k < half``;
what would lie in bin ``half`` counts in the last one. These rules say where bins begin and end:

- The first batch with a value other than zero sets ``width`` to its largest magnitude over
  ``FIRST_BINS``, so it has that many bins on each side.
- A batch that reaches further adds whole bins: ``half = ceil(largest / width)``.
- Above ``MOST_BINS`` in all, neighbours are merged in pairs and the width doubles, as often as needed:
  bin ``k`` becomes ``k // 2``. As dividing by twice the width halves the quotient exactly, a value
  counts where it would have counted had the width been the wider one from the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

FIRST_BINS = 2048
"""Bins on each side of zero after the first batch."""
MOST_BINS = 65536
"""Bins on both sides together."""
MOST_HALF = MOST_BINS // 2
"""Bins on each side at most."""
SMALLEST_WIDTH = torch.finfo(torch.float32).tiny


@dataclass
class Histogram:
    """Counts, int64, of ``2 * half`` bins; ``width`` is 0 until a value other than zero was seen."""

    width: float = 0.0
    counts: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))

    @property
    def half(self) -> int:
        """Bins on each side of zero; the first bin of the values from zero up."""
        return self.counts.numel() // 2

    def edges(self) -> Tensor:
        """Edges of the bins, float64, one more than bins."""
        return torch.arange(-self.half, self.half + 1, dtype=torch.float64) * self.width

    def magnitudes(self) -> Tensor:
        """Counts of the values without their signs, [half]; the first bin begins at zero."""
        return self.counts[self.half :] + self.counts[: self.half].flip(0)

    def reach(self, largest: float) -> None:
        """Merge and add bins until there is one for ``largest``, the largest magnitude of a batch."""
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
