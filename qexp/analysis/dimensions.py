"""Ranges of the embedding dimensions of activations: are there outliers?

Bondarenko et al. 2021 (arXiv 2109.12948, figure 2) draw them for BERT-base: a few dimensions have ranges far
wider than all others, which is why 8 bits for a whole tensor are too coarse there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qexp.analysis.histograms import panels_of, save, short
from qexp.errors import QuantizationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qexp.quant.calibration.statistics import Statistics


@dataclass(frozen=True)
class Dimensions:
    """Lowest and highest value that calibration saw in each dimension of an activation, float [H]."""

    name: str
    low: np.ndarray
    high: np.ndarray

    @property
    def widths(self) -> np.ndarray:
        """Range of each dimension, [H]."""
        widths: np.ndarray = self.high - self.low
        return widths

    @property
    def widest(self) -> int:
        """The dimension with the widest range."""
        return int(self.widths.argmax())

    @property
    def outlier(self) -> float:
        """Widest range over the median range: how far the widest dimension stands out."""
        middle = float(np.median(self.widths))
        return float(self.widths.max()) / middle if middle else float("inf")


def dimensions_of(statistics: Statistics) -> list[Dimensions]:
    """All activations whose dimensions were counted.

    Raises:
        QuantizationError: there are none.
    """
    counted = {name: value.dimensions for name, value in statistics.items()}
    found = [
        Dimensions(name, each.low.numpy(), each.high.numpy())
        for name, each in counted.items()
        if each is not None
    ]
    if not found:
        raise QuantizationError(
            "--dimensions: calibration counted whole values only; inspect a run with embedding groups, such "
            "as scheme=embedding_groups or recipe=bondarenko_peg"
        )
    return found


def dimension_listing(found: Sequence[Dimensions]) -> str:
    """A line for each activation, the one whose widest dimension stands out most first."""
    lines = [f"{'widest / median':>15}  {'widest range':>12}  {'dimension':>9}  activation"]
    for each in sorted(found, key=lambda each: -each.outlier):
        width = float(each.widths[each.widest])
        lines.append(f"{each.outlier:15.1f}  {width:12.2f}  {each.widest:9d}  {each.name}")
    return "\n".join(lines)


def draw_dimensions(found: Sequence[Dimensions], path: Path, title: str, most: int = 24) -> None:
    """Write a panel for each activation, those that stand out most: its range by dimension.

    Raises:
        StoreError: the file cannot be written.
    """
    shown = sorted(found, key=lambda each: -each.outlier)[:most]
    figure, panels = panels_of(len(shown), title)
    for panel, each in zip(panels, shown, strict=False):
        _panel(panel, each)
    save(figure, path, "--dimensions")


def _panel(panel: Axes, each: Dimensions) -> None:
    panel.fill_between(
        np.arange(len(each.low)), each.low, each.high, step="mid", color="#3b6ea5", linewidth=0
    )
    panel.set_title(short(each.name, 60), fontsize=7)
    panel.set_xlabel(f"dimension; widest {each.widest}, {each.outlier:.1f} times the median", fontsize=7)
    panel.set_ylabel("range seen", fontsize=7)
    panel.set_xlim(0, len(each.low) - 1)
    panel.tick_params(labelsize=7)
