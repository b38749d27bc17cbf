"""Histograms of integer weights as a PNG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qexp.errors import QuantizationError, StoreError
from qexp.inspection.layers import Layer, Weight

MOST = 24
"""Panels that one picture holds."""
COLUMNS = 3
BINS = 256
"""Bars of a panel; fewer where the grid has fewer integers."""


def draw(layers: Sequence[Layer], path: Path, title: str) -> None:
    """Write a panel for each weight: how often each integer occurs.

    Raises:
        QuantizationError: no weight among the layers, or more than fit a picture.
        StoreError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    weights = [(layer.name, weight) for layer in layers for weight in layer.weights]
    if not 0 < len(weights) <= MOST:
        raise QuantizationError(
            f"--png: {len(weights)} quantized weights are chosen, a picture holds 1 to {MOST}: "
            "choose layers with --layer"
        )
    columns = min(COLUMNS, len(weights))
    rows = -(-len(weights) // columns)
    figure = Figure(figsize=(4.4 * columns, 2.8 * rows + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for panel, (name, weight) in zip(panels, weights, strict=False):
        _panel(panel, name, weight)
    for panel in panels[len(weights) :]:
        panel.set_axis_off()
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, format="png")
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(
            f"--png {path}: {error.strerror or error}; name a file in a folder that exists"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _panel(panel: object, name: str, weight: Weight) -> None:
    from matplotlib.axes import Axes

    assert isinstance(panel, Axes)
    grid = weight.grid
    width = -(-(grid.qmax - grid.qmin + 1) // BINS)
    edges = np.arange(grid.qmin, grid.qmax + 1 + width, width) - 0.5
    counts, _ = np.histogram(weight.integers.cpu().numpy(), bins=edges)
    panel.stairs(counts / weight.integers.numel() * 100, edges, fill=True, color="#3b6ea5")
    panel.set_title(_short(name), fontsize=8)
    panel.set_xlabel(f"integer, {grid.bits} bits", fontsize=7)
    panel.set_ylabel("% of the weights", fontsize=7)
    panel.set_xlim(edges[0], edges[-1])
    panel.tick_params(labelsize=7)


def _short(name: str, most: int = 44) -> str:
    return name if len(name) <= most else "…" + name[-most + 1 :]
