"""Entropy calibration: the divergence of quantized values for all clipping thresholds at once.

This is the calibration of TensorRT (Migacz, "8-bit inference with TensorRT", GTC 2017), as implemented in
pytorch-quantization 2.1. For a threshold at ``i`` bins of the histogram of magnitudes:

- ``P`` is the first ``i`` bins, with all counts beyond them added to the last one;
- ``Q`` is the first ``i`` bins without these added counts, spread over ``levels`` levels: bin ``j`` belongs
  to level ``floor(j * levels / i)``, and each non-empty bin of a level gets the mean of its non-empty bins;
- both are normalized to a sum of 1, and the divergence is ``sum(P * log(P / Q))``.

Before that, the first bin, which counts zeros, is replaced by the second. Sums over a level are differences
of cumulative sums, so a threshold costs one look-up per level.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1 << 18
"""Number of look-ups at a time, small enough for the cache."""
TIE = 1e-12
"""Tolerance for equal divergences; rounding errors are about 1e-14."""


def threshold(magnitudes: Tensor, levels: int, *, first: int, stride: int) -> int:
    """Return the threshold with the least divergence, in bins; the largest of several equal ones.

    Args:
        magnitudes: Counts of magnitudes, int64 [bins]; the first bin begins at zero.
        levels: Number of levels of a magnitude.
        first: Narrowest threshold in bins. With fewer bins, nothing is clipped.
        stride: Number of bins from one threshold to the next.
    """
    bins = magnitudes.numel()
    if bins <= first:
        return bins
    ends = torch.arange(first, bins + 1, stride)
    divergence = divergences(magnitudes, levels, ends)
    return int(ends[divergence <= divergence.min() + TIE][-1])


def divergences(magnitudes: Tensor, levels: int, ends: Tensor) -> Tensor:
    """Return the divergence for each threshold, float64; infinity where ``Q`` is 0 and ``P`` is not.

    Args:
        magnitudes: Counts as in ``threshold``, of at least two bins.
        levels: Number of levels of a magnitude.
        ends: Thresholds in bins, int64.
    """
    counts = magnitudes.double()
    counts[0] = counts[1]
    below, logs = _cumulated(counts), _cumulated(torch.xlogy(counts, counts))
    inside, last = below[ends], counts[ends - 1]
    beyond = below[-1] - inside
    level_sum, last_log = _level_logs(counts, below, logs=logs, levels=levels, ends=ends)
    p_log_p = logs[ends] - torch.xlogy(last, last) + torch.xlogy(last + beyond, last + beyond)
    p_log_q = level_sum + torch.where(beyond > 0, beyond * last_log, 0.0)
    result = (p_log_p - p_log_q) / below[-1] - (below[-1] / inside).log()
    return torch.where(((last == 0) & (beyond > 0)) | (inside == 0), torch.inf, result)


def _level_logs(
    counts: Tensor, below: Tensor, logs: Tensor, levels: int, ends: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum ``count * log(mean of its level)`` over the bins inside each threshold.

    With at least as many levels as bins, every bin is its own mean.

    Returns:
        The sums, and the logarithm of the mean for the last bin inside.
    """
    sums, lasts = logs[ends], counts[ends - 1].log()
    filled = _cumulated((counts > 0).double())
    coarse = (ends > levels).nonzero().flatten()
    for part in coarse.split(max(1, BLOCK // levels)):
        level = torch.arange(levels + 1)
        edge = -(level * -ends[part, None] // levels)  # rounded up to the first bin of each level
        total, number = below[edge].diff(dim=1), filled[edge].diff(dim=1)
        log_mean = (total / number).nan_to_num_(1.0).log_()  # the value for an empty level is not used
        sums[part] = total.mul_(log_mean).sum(1)
        lasts[part] = log_mean[:, -1]
    return sums, lasts


def _cumulated(values: Tensor) -> Tensor:
    """Return the exclusive cumulative sum, with the total as an additional last element."""
    return torch.nn.functional.pad(values.cumsum(0), (1, 0))
