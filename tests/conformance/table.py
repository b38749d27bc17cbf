"""The table of the comparison: one row for each thing that a real program and qexp both compute."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tests.conformance.inputs import Array

HEADER = ("recipe", "what", "real", "qexp", "largest difference", "verdict")


@dataclass(frozen=True)
class Row:
    """One comparison."""

    recipe: str
    what: str
    real: str
    """What the real program has, in a few words or numbers."""
    ours: str
    """What qexp has."""
    difference: str
    equal: bool
    """Whether the difference is within rounding."""
    variant: str = ""
    """Where a difference is documented as qexp's own choice; empty if it is not."""

    @property
    def verdict(self) -> str:
        """``equal``, ``differs``, or ``variant`` and where it is documented."""
        if self.equal:
            return "equal"
        return f"variant: {self.variant}" if self.variant else "differs"

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells in the order of ``HEADER``."""
        return self.recipe, self.what, self.real, self.ours, self.difference, self.verdict


def markdown(rows: Iterable[Row]) -> str:
    """Return a table in Markdown."""
    lines = [HEADER, ("---",) * len(HEADER), *(row.cells for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def scales_row(
    recipe: str, what: str, real: Array, ours: Array, variant: str = "", *, tolerance: float = 1e-4
) -> Row:
    """Compare scales or thresholds; equal if each is within ``tolerance`` of the other, as a share."""
    real, ours = np.asarray(real, dtype=np.float64).ravel(), np.asarray(ours, dtype=np.float64).ravel()
    ratio = np.nan_to_num(np.abs(ours / real - 1), nan=np.inf)
    within, worst = int((ratio < tolerance).sum()), int(ratio.argmax())
    return Row(
        recipe,
        what,
        f"{real[worst]:.6g}",
        f"{ours[worst]:.6g}",
        f"{ratio[worst]:.2g} of the scale; {within} of {len(ratio)} within {tolerance:g}",
        within == len(ratio),
        variant,
    )


def counts_row(recipe: str, what: str, real: Array, ours: Array, variant: str = "") -> Row:
    """Compare integers one by one."""
    real, ours = np.asarray(real).ravel(), np.asarray(ours).ravel()
    apart = int((real != ours).sum())
    first = int((real != ours).argmax())
    return Row(
        recipe,
        what,
        str(real[first]),
        str(ours[first]),
        f"{apart} of {len(real)} differ",
        apart == 0,
        variant,
    )


def values_row(
    recipe: str, what: str, real: Array, ours: Array, *, tolerance: float = 1e-5, variant: str = ""
) -> Row:
    """Compare floating-point values; equal within ``tolerance`` of the largest magnitude."""
    real, ours = np.asarray(real, dtype=np.float64).ravel(), np.asarray(ours, dtype=np.float64).ravel()
    apart, size = np.abs(real - ours), max(float(np.abs(real).max()), 1e-30)
    worst = int(apart.argmax())
    return Row(
        recipe,
        what,
        f"{real[worst]:.6g}",
        f"{ours[worst]:.6g}",
        f"{apart[worst]:.2g} of at most {size:.3g}",
        bool(apart[worst] <= tolerance * size),
        variant,
    )


def logits_row(recipe: str, what: str, real: Array, ours: Array, variant: str = "") -> Row:
    """Compare logits [rows, labels]; equal if most rows are.

    A value that lies beside a tie may round to another step in a row, and move all that is behind it.
    """
    apart = np.abs(real - ours).max(-1).ravel()
    size, worst = float(np.abs(real).max()), int(apart.argmax())
    within = int((apart <= 1e-5 * size).sum())
    return Row(
        recipe,
        what,
        f"{real.reshape(len(apart), -1)[worst, 0]:.6g}",
        f"{ours.reshape(len(apart), -1)[worst, 0]:.6g}",
        f"{apart[worst]:.2g} of at most {size:.3g}; {within} of {len(apart)} rows within 1e-5",
        within > len(apart) / 2,
        variant,
    )
