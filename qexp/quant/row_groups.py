"""Groups of rows that are computed one after another, so that what a group computes stays small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor


def row_groups(rows: Tensor, row_bytes: int, limits: Mapping[str, int]) -> Iterator[slice]:
    """Return slices over the first axis of a tensor, each of at least one row.

    Args:
        rows: Tensor whose rows do not depend on one another.
        row_bytes: Bytes that are computed from a row.
        limits: Bytes of a group by device: for ``cpu``, and for ``cuda``, which stands for all others.
    """
    limit = limits.get(rows.device.type, limits["cuda"])
    step = max(1, limit // row_bytes)
    return (slice(start, start + step) for start in range(0, len(rows), step))
