"""Histograms of random values."""

from __future__ import annotations

import torch

from qexp.quant.calibration.histogram import Histogram

FINE = 400
"""Points in a bin that stand for values spread evenly over it."""


def random_histogram(seed: int, half: int = 30) -> Histogram:
    """A histogram with empty bins and bins of very different counts."""
    generator = torch.Generator().manual_seed(seed)
    counts = (torch.rand(2 * half, generator=generator) * 6).exp().long()
    return Histogram(0.37, counts * (torch.rand(2 * half, generator=generator) < 0.7))
