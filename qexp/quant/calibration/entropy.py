"""Divergence between values and their quantized form, for every clipping threshold at once.

The calibration of TensorRT (Migacz, "8-bit inference with TensorRT", GTC 2017), in the form of
pytorch-quantization 2.1. For a threshold at ``i`` bins of the histogram of magnitudes:

- ``P`` is the first ``i`` bins, with all counts beyond them added to the last one;
- ``Q`` is the first ``i`` bins without what was added, spread over ``levels`` levels: bin ``j`` belongs to
  level ``floor(j * levels / i)``, and each bin of a level that is not empty gets the mean of those bins;
- both are scaled to a sum of 1, and the divergence is ``sum(P * log(P / Q))``.

The first bin, where zeros count, is replaced by the second before all that. Sums over a level are
differences of cumulated sums, so a threshold costs one look-up for each level.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1 << 18
"""Look-ups at a time: small enough for the cache."""
TIE = 1e-12
"""Divergences this close are equal: rounding makes differences of about 1e-14."""


def threshold(magnitudes: Tensor, levels: int, *, first: int, stride: int) -> int:
    """Bins up to the threshold with the least divergence; of equal ones the largest.

    Args:
        magnitudes: counts, int64 [bins]; the first bin begins at zero.
        levels: levels of a magnitude.
        first: narrowest threshold, in bins; where there are fewer, nothing is clipped.
        stride: bins from one threshold to the next.
    """
    bins = magnitudes.numel()
    if bins <= first:
        return bins
    ends = torch.arange(first, bins + 1, stride)
    found = divergences(magnitudes, levels, ends)
    return int(ends[found <= found.min() + TIE][-1])


def divergences(magnitudes: Tensor, levels: int, ends: Tensor) -> Tensor:
    """Divergence for each threshold, float64; infinity where ``Q`` is 0 and ``P`` is not.

    Args:
        magnitudes: see ``threshold``; at least two bins.
        levels: see ``threshold``.
        ends: thresholds in bins, int64.
    """
    counts = magnitudes.double()
    counts[0] = counts[1]
    below, logs = _cumulated(counts), _cumulated(torch.xlogy(counts, counts))
    inside, last = below[ends], counts[ends - 1]
    beyond = below[-1] - inside
    of_levels, of_last = _level_logs(counts, below, logs, levels, ends)
    p_log_p = logs[ends] - torch.xlogy(last, last) + torch.xlogy(last + beyond, last + beyond)
    p_log_q = of_levels + torch.where(beyond > 0, beyond * of_last, 0.0)
    found = (p_log_p - p_log_q) / below[-1] - (below[-1] / inside).log()
    return torch.where(((last == 0) & (beyond > 0)) | (inside == 0), torch.inf, found)


def _level_logs(
    counts: Tensor, below: Tensor, logs: Tensor, levels: int, ends: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum of ``count * log(mean of its level)`` over the bins inside, and the logarithm for the last bin.

    With at least as many levels as bins, every bin is its own mean.
    """
    sums, lasts = logs[ends], counts[ends - 1].log()
    filled = _cumulated((counts > 0).double())
    coarse = (ends > levels).nonzero().flatten()
    for part in coarse.split(max(1, BLOCK // levels)):
        level = torch.arange(levels + 1)
        edge = -(level * -ends[part, None] // levels)  # rounded up: the first bin of each level
        total, number = below[edge].diff(dim=1), filled[edge].diff(dim=1)
        log_mean = (total / number).nan_to_num_(1.0).log_()  # of an empty level it does not matter
        sums[part] = total.mul_(log_mean).sum(1)
        lasts[part] = log_mean[:, -1]
    return sums, lasts


def _cumulated(values: Tensor) -> Tensor:
    """Sum of all values before each place, one more than values."""
    return torch.nn.functional.pad(values.cumsum(0), (1, 0))
