"""How far the output of one layer is from torch's, in measures that rare ties of rounding do not move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MOST = 5e-4
"""Largest typical error of a layer that agrees, see :attr:`Closeness.typical`.

Measured with ``python -m qexp bench RUN --bisect`` on sound graphs: MiniLM with W8A8 at most 9.1e-6 in ONNX
Runtime, 3.4e-6 in OpenVINO; small random encoders at most 9e-5 (OpenVINO, W4A4), else 4.3e-6. Of the faults
in ``tests/support/graph_faults.py`` that show here the smallest are 1.1e-3 (a query's scale off by 1 % in
a small random BERT) and 2.5e-3 (probabilities times 254/255 in MiniLM)."""
FAR = 0.05
"""An element is far off from this error on, over the root mean square of torch's output."""
MOST_FAR = 0.005
"""Largest share of elements that are far off in a layer that agrees: at most 7.6e-6 in these sound graphs,
and 7.6e-3 in a batch of 131 positions of which the first is wrong."""
SMALLEST = 0.1
"""Channels smaller than this, over the root mean square of all, are held against this instead."""


@dataclass(frozen=True)
class Closeness:
    """Of a layer's output to torch's."""

    typical: float
    """Of the worst channel, the median of the absolute error over the root mean square of torch's
    values; infinite where a value is no number, or the shapes differ. A fault of one channel shows here."""
    far: float
    """Share of elements whose error exceeds ``FAR``, 0 to 1. A fault of few rows or positions shows here."""

    @property
    def departs(self) -> bool:
        """Whether it is too far for rounding noise."""
        return not (self.typical <= MOST and self.far <= MOST_FAR)

    def __str__(self) -> str:
        if self.typical <= MOST and self.departs:
            return f"more than {FAR} in {100 * self.far:.2g} % of its values"
        return f"{self.typical:.2g}"


def closeness(ours: Array, theirs: Array) -> Closeness:
    """Compare what an engine computes with what torch computes.

    Args:
        ours: The engine's, in any shape.
        theirs: Torch's, in the same shape; its last axis are channels.
    """
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return Closeness(float("inf"), 1.0)
    error = np.abs(ours.astype(np.float64) - theirs).reshape(-1, theirs.shape[-1])
    squares = np.square(theirs, dtype=np.float64).reshape(error.shape)
    size = float(np.sqrt(squares.mean()))
    if size == 0.0:
        wrong = float((error > 0).mean())
        return Closeness(float("inf") if wrong else 0.0, wrong)
    sizes = np.maximum(np.sqrt(squares.mean(axis=0)), SMALLEST * size)
    typical = float((np.median(error, axis=0) / sizes).max())
    return Closeness(typical, float((error > FAR * size).mean()))
