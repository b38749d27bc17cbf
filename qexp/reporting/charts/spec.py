"""Charts as plain values, so that a page and an image file show the same.

:mod:`qexp.reporting.charts.svg` draws charts into a page, :mod:`qexp.reporting.charts.matplotlib` into files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scale = Literal["linear", "log", "asinh"]
"""``asinh`` is linear within ±1 and logarithmic beyond, so that it covers both signs."""
WIDE = 20
"""Ratio of the largest value to a small one from which an axis is not linear."""
MUTED = -1
"""Colour of marks behind the data."""
COLOURS = 8
"""Number of colours; ``Series.colour`` wraps around after the last one."""


@dataclass(frozen=True)
class Axis:
    """Label and scale of one axis."""

    label: str
    """Quantity and its unit."""
    scale: Scale = "linear"


@dataclass(frozen=True)
class Dot:
    """Point of a chart, with its texts."""

    x: float
    y: float
    words: str = ""
    """Tooltip of the dot."""
    label: str = ""
    """Text beside the dot, if there is room."""


@dataclass(frozen=True)
class Series:
    """Dots that share an entry of the legend."""

    name: str
    dots: tuple[Dot, ...]
    colour: int
    form: Literal["dots", "hollow", "line", "front"]
    """``front`` is the staircase over dots of rising x and y."""
    shape: int = 0
    """Index of the shape of dots: circle, square, diamond, triangle."""


@dataclass(frozen=True)
class XYChart:
    """Chart of one number against another."""

    name: str
    """Name of the file, which distinguishes the chart from others."""
    group: str
    """Task or run that the chart shows."""
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """Element of a lane; ``dot``, ``ring`` and ``median`` are at ``low``, the others reach to ``high``."""

    low: float
    high: float
    kind: Literal["dot", "ring", "median", "bar", "seen"]
    words: str = ""
    colour: int = 0


@dataclass(frozen=True)
class Lane:
    """Named row of marks in a chart."""

    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class RangeChart:
    """Chart of numbers for each of many names."""

    name: str
    group: str
    title: str
    x: Axis
    lanes: tuple[Lane, ...]
    legend: tuple[tuple[str, Mark], ...] = ()
    """Name and sample of each kind of mark."""
    notes: tuple[str, ...] = ()


Chart = XYChart | RangeChart


@dataclass(frozen=True)
class Gallery:
    """Charts of one kind, or the reason why there are none."""

    title: str
    lead: str
    """Sentence on what the charts show."""
    charts: tuple[Chart, ...]
    empty: str
    """Reason why there is no chart."""
    command: str
    """Command that fills the gallery."""
    one_by_one: bool = False
    """Whether a reader selects one chart at a time."""
    notes: tuple[str, ...] = ()
    """Notes on what was left out."""
