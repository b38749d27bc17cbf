"""Ranges of the embedding dimensions of activations, which reveal outlier dimensions.

Bondarenko et al. 2021 (arXiv 2109.12948, figure 2) plot them for BERT-base: a few dimensions have far wider
ranges than all others, which is why per-tensor quantization to 8 bits is too coarse there.
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

    from qexp.quant.calibration.statistics import CalibrationStatistics


@dataclass(frozen=True)
class Dimensions:
    """Lowest and highest value of each dimension of an activation during calibration, float [H]."""

    name: str
    low: np.ndarray
    high: np.ndarray

    @property
    def widths(self) -> np.ndarray:
        """Width of the range of each dimension, [H]."""
        widths: np.ndarray = self.high - self.low
        return widths

    @property
    def widest(self) -> int:
        """Index of the dimension with the widest range."""
        return int(self.widths.argmax())

    @property
    def outlier(self) -> float:
        """Ratio of the widest range to the median range; infinite if the median is 0."""
        middle = float(np.median(self.widths))
        return float(self.widths.max()) / middle if middle else float("inf")


def dimensions_of(statistics: CalibrationStatistics) -> list[Dimensions]:
    """Return the ranges of the dimensions of all activations that have any.

    Raises:
        QuantizationError: If there are none.
    """
    ranges = [
        Dimensions(name, *value.extremes.numpy())
        for name, value in statistics.items()
        if value.extremes is not None
    ]
    if not ranges:
        raise QuantizationError(
            "--dimensions: the statistics of this run have no ranges of dimensions: an older version of qexp "
            "collected them, or only values inside attention are quantized; inspect a run that calibrated "
            "inputs of linear layers anew"
        )
    return ranges


def dimension_listing(found: Sequence[Dimensions]) -> str:
    """Return a table with one line per activation, sorted by descending ``outlier``."""
    lines = [f"{'widest / median':>15}  {'widest range':>12}  {'dimension':>9}  activation"]
    for each in sorted(found, key=lambda each: -each.outlier):
        width = float(each.widths[each.widest])
        lines.append(f"{each.outlier:15.1f}  {width:12.2f}  {each.widest:9d}  {each.name}")
    return "\n".join(lines)


def draw_dimensions(found: Sequence[Dimensions], path: Path, title: str, most: int = 24) -> None:
    """Plot the range of each dimension, with a panel per activation, for the ``most`` of largest ``outlier``.

    Raises:
        StoreError: If the file cannot be written.
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
