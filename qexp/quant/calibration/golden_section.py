"""Golden-section search (Kiefer 1953, "Sequential minimax search for a maximum") for shares of ranges.

An error that falls and then rises over the shares is narrowed down to its least by one evaluation for
each step. The squared error of a grid is such a curve only roughly: where rounding matters more than
clipping, it goes up and down as levels pass over values. So the result is a good share, but a dense grid of
shares can find a better one. It is never worse than the whole range.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 1e-3
"""Width of the interval of shares at which the search ends."""
_SECTION = (math.sqrt(5) - 1) / 2


def best_share(errors: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The share in (0, 1] with the least error that was met, for many searches side by side.

    Args:
        errors: of the searches' shares, [searches], each its error.
        like: any tensor [searches], on the device of the errors.

    Returns:
        Float64 [searches].
    """
    whole = torch.ones(like.shape, dtype=torch.float64, device=like.device)
    start, end = torch.zeros_like(whole), whole
    lower, upper = _inner(start, end)
    of_lower, of_upper = errors(lower), errors(upper)
    for _ in range(math.ceil(math.log(TOLERANCE) / math.log(_SECTION))):
        left = of_lower < of_upper  # the least is below the upper of the two
        start, end = torch.where(left, start, lower), torch.where(left, upper, end)
        kept, of_kept = torch.where(left, lower, upper), torch.where(left, of_lower, of_upper)
        new = torch.where(left, *_inner(start, end))
        of_new = errors(new)
        lower, upper = torch.where(left, new, kept), torch.where(left, kept, new)
        of_lower, of_upper = torch.where(left, of_new, of_kept), torch.where(left, of_kept, of_new)
    met = torch.stack([whole, lower, upper])
    least = torch.stack([errors(whole), of_lower, of_upper]).argmin(0, keepdim=True)
    return met.gather(0, least)[0]


def _inner(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The two points that divide intervals by the golden section."""
    part = _SECTION * (end - start)
    return end - part, start + part
