"""Distance of a layer's output from torch's, in measures that are robust to rare rounding ties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MOST = 5e-4
"""Largest typical error of a layer that agrees with torch, see :attr:`Closeness.typical`.

Measured with ``python -m qexp bench RUN --bisect`` on correct graphs: MiniLM with W8A8 at most 9.1e-6 in ONNX
Runtime, 3.4e-6 in OpenVINO; small random encoders at most 9e-5 (OpenVINO, W4A4), else 4.3e-6. Of the faults
in ``tests/support/graph_faults.py`` that this measure detects, the smallest have 1.1e-3 (a query's scale off
by 1 % in a small random BERT) and 2.5e-3 (probabilities times 254/255 in MiniLM)."""
FAR = 0.05
"""Error, divided by the root mean square of torch's output, above which an element is far off."""
MOST_FAR = 0.005
"""Largest share of elements far off in a layer that agrees with torch: the correct graphs of :data:`MOST`
have at most 7.6e-6, a batch of 131 positions of which the first is wrong has 7.6e-3."""
SMALLEST = 0.1
"""Lower bound on the channel size that errors are divided by, relative to the root mean square of all."""


@dataclass(frozen=True)
class Closeness:
    """Errors of a layer's output with respect to torch's."""

    typical: float
    """Median absolute error divided by the root mean square of torch's values, for the worst channel. It is
    infinite if a value is not finite, or the shapes differ. It detects faults of single channels."""
    far: float
    """Share of elements whose error exceeds ``FAR``, 0 to 1. It detects faults of few rows or positions."""

    @property
    def diverges(self) -> bool:
        """Whether the error is too large for rounding noise."""
        return not (self.typical <= MOST and self.far <= MOST_FAR)

    def __str__(self) -> str:
        if self.typical <= MOST and self.diverges:
            return f"more than {FAR} in {100 * self.far:.2g} % of its values"
        return f"{self.typical:.2g}"


def closeness(candidate: Array, reference: Array) -> Closeness:
    """Compare the output of an engine with that of torch.

    Args:
        candidate: Output of the engine, in any shape.
        reference: Output of torch, in the same shape, with channels on the last axis.
    """
    if candidate.shape != reference.shape or not (
        np.isfinite(candidate).all() and np.isfinite(reference).all()
    ):
        return Closeness(float("inf"), 1.0)
    error = np.abs(candidate.astype(np.float64) - reference).reshape(-1, reference.shape[-1])
    squares = np.square(reference, dtype=np.float64).reshape(error.shape)
    size = float(np.sqrt(squares.mean()))
    if size == 0.0:
        wrong = float((error > 0).mean())
        return Closeness(float("inf") if wrong else 0.0, wrong)
    sizes = np.maximum(np.sqrt(squares.mean(axis=0)), SMALLEST * size)
    typical = float((np.median(error, axis=0) / sizes).max())
    return Closeness(typical, float((error > FAR * size).mean()))
