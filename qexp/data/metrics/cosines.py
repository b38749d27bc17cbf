"""Cosines of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray[Any, Any]


def cosines(candidate: Array, reference: Array) -> NDArray[np.float64]:
    """Return the cosine of each row of two matrices of vectors, [rows, D] each, in double precision.

    Vectors of norm 1 in FP32 are normalized once more.
    """
    one, other = candidate.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: NDArray[np.float64] = np.clip((one * other).sum(axis=1) / norms, -1, 1)
    return found
