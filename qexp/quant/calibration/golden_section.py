"""Golden-section search (Kiefer 1953, "Sequential minimax search for a maximum") for shares of ranges.

If the error falls and then rises over the shares, the search narrows down its minimum with one evaluation per
step. The squared error of a grid is only roughly unimodal: where rounding dominates clipping, it oscillates
as levels move across values. So the result is a good share, but a dense grid of shares can find a better one.
It is never worse than the full range.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 1e-3
"""Width of the interval of shares at which the search stops."""
_SECTION = (math.sqrt(5) - 1) / 2


def best_share(errors: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Return the share in (0, 1] with the least error evaluated, for many searches in parallel.

    Args:
        errors: Function from shares [searches] to the error of each.
        like: Any tensor [searches] on the device of the errors.

    Returns:
        Shares, float64 [searches].
    """
    whole = torch.ones(like.shape, dtype=torch.float64, device=like.device)
    start, end = torch.zeros_like(whole), whole
    lower, upper = _inner(start, end)
    lower_error, upper_error = errors(lower), errors(upper)
    for _ in range(math.ceil(math.log(TOLERANCE) / math.log(_SECTION))):
        left = lower_error < upper_error  # the minimum is below ``upper``
        start, end = torch.where(left, start, lower), torch.where(left, upper, end)
        kept, kept_error = torch.where(left, lower, upper), torch.where(left, lower_error, upper_error)
        new = torch.where(left, *_inner(start, end))
        new_error = errors(new)
        lower, upper = torch.where(left, new, kept), torch.where(left, kept, new)
        lower_error, upper_error = (
            torch.where(left, new_error, kept_error),
            torch.where(left, kept_error, new_error),
        )
    shares = torch.stack([whole, lower, upper])
    least = torch.stack([errors(whole), lower_error, upper_error]).argmin(0, keepdim=True)
    return shares.gather(0, least)[0]


def _inner(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two points that divide intervals by the golden section."""
    part = _SECTION * (end - start)
    return end - part, start + part
