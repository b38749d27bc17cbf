"""Histogram of the differences between logits, over rows, in bins of equal ratio."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qexp.records.schema import BINS_OF_DECADE, DifferenceHistogram

SMALLEST, LARGEST = -9, 6
"""Powers of ten between which differences have bins; larger ones count in the last bin."""


def histogram_of(differences: NDArray[Any]) -> DifferenceHistogram:
    """Return the number of rows in each bin between the first and the last that has any.

    Args:
        differences: Absolute difference of each row, [rows]; those that are not finite are left out.
    """
    finite = differences[np.isfinite(differences)]
    positive = finite[finite >= 10.0**SMALLEST]
    bins = np.floor(BINS_OF_DECADE * np.log10(positive)).astype(np.int64)
    bins = np.minimum(bins, BINS_OF_DECADE * LARGEST - 1)
    first = int(bins.min()) if len(bins) else BINS_OF_DECADE * SMALLEST
    counts = np.bincount(bins - first).tolist()
    return {"below": int(len(finite) - len(positive)), "first": first, "counts": counts}
