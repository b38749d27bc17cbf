"""Charts as PNG and SVG files, drawn with matplotlib."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from qexp.errors import StoreError
from qexp.reporting.charts.spec import COLOURS, MUTED, Chart, Gallery, Mark, RangeChart, Series, XYChart
from qexp.reporting.charts.svg import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#1d2126", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7d5a3c")
"""Okabe and Ito, "Color Universal Design" (2008); yellow and black darkened, brown for the eighth."""
GREY = "#8a929c"
SHAPES = "osD^"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "qexp",  # makes files reproducible
    "text.parse_math": False,  # dollar signs in names are literal
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "legend.frameon": False,
    "legend.fontsize": 9,
}
_LONGEST = 120


def write_plots(galleries: Iterable[Gallery], folder: Path) -> list[Path]:
    """Write ``<chart>.png`` and ``<chart>.svg`` for each chart, and return their paths.

    Raises:
        StoreError: If the folder cannot be written.
    """
    charts = [chart for gallery in galleries for chart in gallery.charts]
    paths = []
    for name, chart in zip(_file_names(charts), charts, strict=True):
        figure = draw(chart)
        for ending in ("png", "svg"):
            paths.append(folder / f"{name}.{ending}")
            _save(figure, paths[-1])
    return paths


def draw(chart: Chart) -> Figure:
    """Draw a chart as a figure that is not part of matplotlib's global state."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 4.4 if isinstance(chart, XYChart) else 1.4 + 0.24 * len(chart.lanes)
    with rc_context(STYLE):
        figure = Figure(figsize=(6.8 if isinstance(chart, XYChart) else 8.4, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        figure.suptitle(fill(chart.title, 80), fontsize=10.5, x=0.01, ha="left")
        axes.set_xlabel(chart.x.label)
        axes.set_xscale(chart.x.scale)
        if isinstance(chart, XYChart):
            _plane(axes, chart)
        else:
            _lanes(figure, axes, chart)
        if chart.notes:
            figure.supxlabel("\n".join(chart.notes), fontsize=8, color=GREY, x=0.01, ha="left")
    return figure


def _plane(axes: Axes, chart: XYChart) -> None:
    axes.set_ylabel(chart.y.label)
    axes.set_yscale(chart.y.scale)
    axes.margins(0.07)
    for series in chart.series:
        if series.form != "front":
            _series(axes, series)
    for series in chart.series:
        if series.form == "front":
            _front(axes, series)
    for dot in (dot for series in chart.series for dot in series.dots if dot.label):
        axes.annotate(dot.label, (dot.x, dot.y), (4, 6), textcoords="offset points", fontsize=8)
    if any(series.name for series in chart.series):
        axes.legend(loc="best")


def _series(axes: Axes, series: Series) -> None:
    x, y = [dot.x for dot in series.dots], [dot.y for dot in series.dots]
    colour, name = _colour(series.colour), series.name or "_"
    if series.form == "line":
        axes.plot(x, y, color=colour, label=name, marker="o" if len(x) == 1 else None)
    else:
        face = "white" if series.form == "hollow" else colour
        shape = SHAPES[series.shape % len(SHAPES)]
        axes.scatter(x, y, s=42, marker=shape, facecolors=face, edgecolors=colour, label=name, zorder=3)


def _front(axes: Axes, series: Series) -> None:
    """Draw a staircase over the dots, from the lower to the right edge, and keep the limits of the axes."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    x, y = [dot.x for dot in series.dots], [dot.y for dot in series.dots]
    (line,) = axes.step([x[0], *x, right], [low, *y, y[-1]], where="post", zorder=1.5, label=series.name)
    line.set(color=_colour(series.colour), linestyle="--", linewidth=1.2)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)


def _lanes(figure: Figure, axes: Axes, chart: RangeChart) -> None:
    for row, lane in enumerate(chart.lanes):
        for mark in lane.marks:
            _mark(axes, mark, row)
    names = [shortened(lane.name, 60) for lane in chart.lanes]
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.use_sticky_edges = False
    axes.margins(x=0.03)
    axes.grid(visible=False, axis="y")
    if chart.legend:
        handles = [_mark(axes, mark, None) for _, mark in chart.legend]
        names = [name for name, _ in chart.legend]
        figure.legend(handles, names, loc="outside upper right", ncols=len(names))


def _mark(axes: Axes, mark: Mark, row: int | None) -> Any:
    """Draw a mark on its row, or without a row an invisible sample for the legend."""
    colour, at = _colour(mark.colour), [float("nan") if row is None else row]
    if mark.kind == "median":
        return axes.scatter([mark.low], at, s=110, marker="|", color=colour, linewidths=2.2, zorder=3)
    if mark.kind in ("dot", "ring"):
        face = "white" if mark.kind == "ring" else colour
        return axes.scatter([mark.low], at, s=28, facecolors=face, edgecolors=colour, alpha=0.85, zorder=3)
    height, alpha = (0.72, 0.4) if mark.kind == "seen" else (0.36, 1.0)
    return axes.barh(at, [mark.high - mark.low], height, left=[mark.low], color=colour, alpha=alpha)


def _colour(number: int) -> str:
    return GREY if number == MUTED else PALETTE[number % COLOURS]


def _file_names(charts: Sequence[Chart]) -> Iterator[str]:
    """Yield a valid and unique file name for each chart."""
    taken: set[str] = set()
    for chart in charts:
        name = re.sub(r"[^\w.=-]+", "-", chart.name).strip("-.")[-_LONGEST:]
        number = next(number for number in range(1, len(charts) + 1) if _numbered(name, number) not in taken)
        taken.add(_numbered(name, number))
        yield _numbered(name, number)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _save(figure: Figure, path: Path) -> None:
    """Write a figure atomically."""
    from matplotlib import rc_context

    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    form = path.suffix[1:]
    metadata = {"Date": None} if form == "svg" else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with rc_context(STYLE):
            figure.savefig(temporary, format=form, dpi=150, metadata=metadata)
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(
            f"--plots {path}: {error.strerror or error}; make room or name another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
