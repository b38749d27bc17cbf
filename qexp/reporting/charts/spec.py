"""A chart as plain values, so that a page and a picture show the same.

:mod:`qexp.reporting.charts.svg` draws charts into a page, :mod:`qexp.reporting.charts.matplotlib` into files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scale = Literal["linear", "log", "asinh"]
"""``asinh`` is linear within ±1 and logarithmic beyond, so that it holds both signs."""
WIDE = 20
"""Where the largest value is so many times a small one, an axis is not linear."""
MUTED = -1
"""Colour of what stands behind the data."""
COLOURS = 8
"""How many colours there are; ``Series.colour`` counts on from the first after the last."""


@dataclass(frozen=True)
class Axis:
    """What is measured along one side."""

    label: str
    """With the unit."""
    scale: Scale = "linear"


@dataclass(frozen=True)
class Dot:
    """A pair of numbers."""

    x: float
    y: float
    words: str = ""
    """What a pointer on it reads."""
    label: str = ""
    """What stands beside it, where there is room."""


@dataclass(frozen=True)
class Series:
    """Dots of one name in the legend."""

    name: str
    dots: tuple[Dot, ...]
    colour: int
    form: Literal["dots", "hollow", "line", "front"]
    """``front`` is the staircase over dots of rising x and y."""
    shape: int = 0
    """Of dots: circle, square, diamond, triangle."""


@dataclass(frozen=True)
class Plane:
    """A chart of two numbers."""

    name: str
    """Of a file; told apart from other charts by it."""
    group: str
    """What it is of: a task or a run."""
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """A piece of a lane; ``dot``, ``ring`` and ``median`` stand at ``low``, the others reach to ``high``."""

    low: float
    high: float
    kind: Literal["dot", "ring", "median", "bar", "seen"]
    words: str = ""
    colour: int = 0


@dataclass(frozen=True)
class Lane:
    """One named line of a chart."""

    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Lanes:
    """A chart of one number for each of many names."""

    name: str
    group: str
    title: str
    x: Axis
    lanes: tuple[Lane, ...]
    legend: tuple[tuple[str, Mark], ...] = ()
    """Names of marks."""
    notes: tuple[str, ...] = ()


Chart = Plane | Lanes


@dataclass(frozen=True)
class Gallery:
    """Charts of one kind, or why there are none."""

    title: str
    lead: str
    """What the charts show, in a sentence."""
    charts: tuple[Chart, ...]
    empty: str
    """Why there is no chart."""
    command: str
    """What fills it."""
    one_by_one: bool = False
    """Whether a reader chooses one at a time."""
    notes: tuple[str, ...] = ()
    """What was left out."""
