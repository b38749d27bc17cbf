"""Histograms of integer weights as PNG, and the figure helpers for other plots of layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qexp.analysis.layers import LayerWeight, QuantizedLayer
from qexp.errors import QuantizationError, StoreError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 24
"""Maximum number of panels of a picture."""
COLUMNS = 3
BINS = 256
"""Maximum number of bars of a panel; a grid with fewer integers has fewer."""


def draw(layers: Sequence[QuantizedLayer], path: Path, title: str) -> None:
    """Plot a histogram of the integers of each weight, one per panel.

    Raises:
        QuantizationError: If the layers have no weight, or more than ``MOST``.
        StoreError: If the file cannot be written.
    """
    weights = [(layer.name, weight) for layer in layers for weight in layer.weights]
    if not 0 < len(weights) <= MOST:
        raise QuantizationError(
            f"--png: {len(weights)} quantized weights are chosen, a picture holds 1 to {MOST}: "
            "choose layers with --layer"
        )
    figure, panels = panels_of(len(weights), title)
    for panel, (name, weight) in zip(panels, weights, strict=False):
        _panel(panel, name, weight)
    save(figure, path, "--png")


def panels_of(count: int, title: str) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with ``count`` panels in a grid of at most ``COLUMNS`` columns."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.4 * columns, 2.8 * rows + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, list(panels[:count])


def save(figure: Figure, path: Path, option: str) -> None:
    """Write a figure as PNG, atomically by a rename.

    Raises:
        StoreError: If the file cannot be written; ``option`` is the command-line option in the message.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, format="png")
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(
            f"{option} {path}: {error.strerror or error}; name a file in a folder that exists"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _panel(panel: Axes, name: str, weight: LayerWeight) -> None:
    grid = weight.grid
    width = -(-(grid.qmax - grid.qmin + 1) // BINS)
    edges = np.arange(grid.qmin, grid.qmax + 1 + width, width) - 0.5
    counts, _ = np.histogram(weight.integers.cpu().numpy(), bins=edges)
    panel.stairs(counts / weight.integers.numel() * 100, edges, fill=True, color="#3b6ea5")
    panel.set_title(short(name), fontsize=8)
    panel.set_xlabel(f"integer, {grid.bits} bits", fontsize=7)
    panel.set_ylabel("% of the weights", fontsize=7)
    panel.set_xlim(edges[0], edges[-1])
    panel.tick_params(labelsize=7)


def short(name: str, most: int = 44) -> str:
    """Shorten a name to its last ``most`` characters, with an ellipsis in front."""
    return name if len(name) <= most else "…" + name[-most + 1 :]
