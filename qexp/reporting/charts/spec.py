"""Charts as plain values; :mod:`qexp.reporting.charts.vega` draws them into a page and into files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Scale = Literal["linear", "log", "symlog"]
"""``symlog`` is linear around zero and logarithmic beyond, so that it covers both signs."""
WIDE = 20
"""Ratio of the largest value to a small one from which an axis is not linear."""
MUTED = -1
"""Colour of marks behind the data."""


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
    """What the dot is."""
    label: str = ""
    """Text beside the dot."""


@dataclass(frozen=True)
class Series:
    """Dots that share an entry of the legend."""

    name: str
    dots: tuple[Dot, ...]
    colour: int
    form: Literal["dots", "hollow", "line", "steps", "dashed", "front"]
    """``steps`` is the staircase through dots of rising x, ``dashed`` another, and ``front`` one without
    dots."""
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


MarkKind = Literal["dot", "ring", "median", "outlier", "bar", "seen"]


@dataclass(frozen=True)
class Mark:
    """Element of a lane; ``bar`` and ``seen`` reach from ``low`` to ``high``, the others are at ``low``."""

    low: float
    high: float
    kind: MarkKind
    words: str = ""


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
    legend: tuple[tuple[MarkKind, str], ...] = ()
    """Name of each kind of mark; without any the chart has no legend."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tile:
    """Number at a column and a row of a heat map."""

    column: str
    row: str
    value: float
    words: str = ""


@dataclass(frozen=True)
class HeatMap:
    """Numbers by two names, as colours."""

    name: str
    group: str
    title: str
    columns: str
    """What the columns are."""
    rows: str
    value: str
    """Quantity and its unit."""
    tiles: tuple[Tile, ...]
    """In the order of rows and columns."""
    is_loss: bool
    """Whether a large number is worse than a small one."""
    notes: tuple[str, ...] = ()


Chart = XYChart | RangeChart | HeatMap


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


def scale_of(values: Sequence[float]) -> Scale:
    """Return ``linear`` if that shows all values, else ``log`` if all are positive, else ``symlog``."""
    sizes = sorted(abs(value) for value in values if value)
    if not sizes or sizes[-1] < WIDE * sizes[len(sizes) // 4]:
        return "linear"
    return "log" if min(values) > 0 else "symlog"
