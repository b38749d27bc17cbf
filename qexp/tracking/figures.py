"""Pictures of a page: loss curves, activation ranges, and FP32 against quantized predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from qexp.tracking.tracker import CellTable, PageContent, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY = "#3b6ea5", "#c8cdd3"
SMALLEST = 1e-9
"""Differences of logits below this one are drawn at it, so that an exact result has a place, too."""
MOST_CLASSES = 40
"""Maximum number of classes in a picture of predictions."""


def draw(content: PageContent) -> dict[str, Picture]:
    """Draw every picture that the content has numbers for, by name."""
    return {f"pictures/{name}": _pixels(figure) for name, figure in _figures(content)}


def _figures(content: PageContent) -> Iterator[tuple[str, Figure]]:
    if any(curve["step"] for curve in content.curves.values()):
        yield "loss", _losses(content)
    if ranges := content.tables.get("ranges"):
        for stage in dict.fromkeys(row[0] for row in ranges.rows):
            rows = [dict(zip(ranges.columns, row, strict=True)) for row in ranges.rows if row[0] == stage]
            yield f"ranges/{stage}", _ranges(rows, str(stage))
            if measured := [row for row in rows if row["sqnr"] is not None]:
                yield f"noise/{stage}", _noise(measured, str(stage))
    if gate := content.tables.get("gate"):
        yield "gate", _gate([dict(zip(gate.columns, row, strict=True)) for row in gate.rows])
    for name, table in content.tables.items():
        if name.startswith("confusion/") and len(_classes(table)) <= MOST_CLASSES:
            yield name, _confusion(table)


def _losses(content: PageContent) -> Figure:
    figure, axes = _blank(6.4, 3.6)
    for name, curve in content.curves.items():
        axes.plot(curve["step"], curve["loss"], label=name, linewidth=1.2)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    return figure


def _ranges(rows: list[dict[str, Any]], stage: str) -> Figure:
    """Draw the range of each quantizer as a bar over the range that calibration saw."""
    figure, axes = _blank(9.0, 1.2 + 0.17 * len(rows))
    axes.set_xscale("symlog")
    places = np.arange(len(rows))
    for names, height, colour, label in (
        (("seen_low", "seen_high"), 0.8, GREY, "seen"),
        (("low", "high"), 0.4, BLUE, "range"),
    ):
        low, high = (np.array([row[name] for row in rows], float) for name in names)
        axes.barh(places, high - low, left=low, height=height, color=colour, label=label)
    axes.set_yticks(places, [_short(row["quantizer"]) for row in rows], fontsize=6)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title(f"activation ranges, {stage}", fontsize=9)
    axes.legend(frameon=False, fontsize=7, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0)
    return figure


def _noise(rows: list[dict[str, Any]], stage: str) -> Figure:
    """Draw the signal-to-quantization-noise ratio of each activation, the noisiest first."""
    rows = sorted(rows, key=lambda row: float(row["sqnr"]))
    figure, axes = _blank(9.0, 1.2 + 0.17 * len(rows))
    axes.barh(range(len(rows)), [row["sqnr"] for row in rows], height=0.7, color=BLUE)
    axes.set_yticks(range(len(rows)), [_short(row["quantizer"]) for row in rows], fontsize=6)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("SQNR (dB), more is better", fontsize=8)
    axes.set_title(f"signal to quantization noise of each activation, {stage}", fontsize=9)
    return figure


def _gate(rows: list[dict[str, Any]]) -> Figure:
    """Draw how far the logits of engines are from torch's, beside the floor: torch in another arithmetic."""
    figure, axes = _blank(7.0, 1.2 + 0.25 * len(rows))
    for name, marker, colour, label in (
        ("floor", "|", "black", "floor: torch in another arithmetic"),
        ("difference", "o", BLUE, "engine"),
    ):
        known = [(place, max(row[name], SMALLEST)) for place, row in enumerate(rows) if row[name] is not None]
        places, values = ([each[index] for each in known] for index in range(2))
        axes.scatter(values, places, marker=marker, color=colour, label=label)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [f"{row['engine']} {row['quantile']}" for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("absolute difference of logits", fontsize=8)
    axes.legend(frameon=False, fontsize=7, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0)
    return figure


def _confusion(table: CellTable) -> Figure:
    """Draw the number of rows of each pair of predicted classes, with the quantized model on the x axis."""
    classes = _classes(table)
    counts = np.zeros((len(classes), len(classes)), int)
    for fp32, quantized, _, rows in table.rows:
        counts[classes.index(str(fp32)), classes.index(str(quantized))] += int(rows or 0)
    size = 2.4 + 0.6 * len(classes)
    figure, axes = _blank(size, size)
    axes.imshow(counts, cmap="Blues", vmin=0, vmax=max(1, counts.max()))
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if count > counts.max() / 2 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set_xlabel(f"predicted by {table.columns[1]}")
    axes.set_ylabel("predicted by fp32")
    return figure


def _classes(table: CellTable) -> list[str]:
    """Return the predicted classes, sorted by name."""
    return sorted({str(value) for row in table.rows for value in row[:2]})


def _blank(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of a size in inches that is not part of matplotlib's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _pixels(figure: Figure) -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[:, :, :3]  # type: ignore[no-untyped-call]


def _short(name: str, most: int = 60) -> str:
    return name if len(name) <= most else "…" + name[-most + 1 :]
