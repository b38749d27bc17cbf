"""Charts as Vega-Lite specifications, made with Altair.

A specification has no data: the page reads the numbers from the table of the chart, which screen readers and
browsers without scripts show, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any

import altair as alt

from qexp.reporting.charts.spec import MUTED, Axis, Chart, MarkKind, RangeChart, XYChart

PALETTE = ("#96704f", "#1f7fbf", "#d55e00", "#00916c", "#b8609a", "#a67a00", "#7a6fd0", "#5b8c00")
"""After Okabe and Ito, "Color Universal Design" (2008), adjusted to stand out from white and from black."""
GREY = "#7d8691"
SHAPES = ("circle", "square", "diamond", "triangle-up")
MOST_LABELS = 8
"""Number of labelled dots above which labels would cover each other."""
_LANE, _PLANE = 18, 280
"""Height in pixels of a lane, and of a chart of one number against another."""
_MARKS: Mapping[MarkKind, tuple[str, dict[str, Any], str]] = {
    "seen": ("bar", {"height": 12, "opacity": 0.45}, GREY),
    "bar": ("bar", {"height": 6, "minBandSize": 1}, PALETTE[1]),
    "median": ("tick", {"thickness": 2.5, "size": 15}, PALETTE[2]),
    "outlier": ("point", {"filled": True, "size": 45, "opacity": 0.8}, PALETTE[2]),
    "dot": ("point", {"filled": True, "size": 55, "opacity": 0.8}, PALETTE[1]),
    "ring": ("point", {"filled": False, "size": 55, "strokeWidth": 2}, PALETTE[1]),
}  # fmt: skip
"""Mark, its properties and its colour for each kind, from the back to the front."""

_LINES: Mapping[str, dict[str, Any]] = {
    "steps": {"interpolate": "step-after", "point": {"size": 14}},
    "dashed": {"interpolate": "step-after", "point": {"size": 14}, "strokeDash": [5, 3]},
    "front": {"interpolate": "step-after", "strokeDash": [5, 3], "point": False},
    "line": {"point": {"size": 14}},
}
"""Properties of the line of each form, from the back to the front."""

Specification = dict[str, Any]
Style = tuple[str, int, str, int]
"""Name, colour, form and shape of a series."""


@dataclass(frozen=True)
class DataColumn:
    """Column of a chart's table: the field that a specification reads, and the header that a reader sees."""

    field: str
    title: str
    is_number: bool = False


@dataclass(frozen=True)
class ChartData:
    """Numbers of a chart as a table."""

    columns: tuple[DataColumn, ...]
    rows: list[tuple[str | float, ...]]

    @property
    def values(self) -> list[dict[str, str | float]]:
        """Rows by field, as Vega-Lite reads them."""
        return [dict(zip((each.field for each in self.columns), row, strict=True)) for row in self.rows]


def data_of(chart: Chart) -> ChartData:
    """Return the numbers of a chart."""
    if isinstance(chart, XYChart):
        x, y = (DataColumn(name, axis.label, True) for name, axis in (("x", chart.x), ("y", chart.y)))
        rows: list[tuple[str | float, ...]] = [
            (series.name, dot.x, dot.y, dot.words, dot.label)
            for series in chart.series
            for dot in series.dots
        ]
        texts = (DataColumn("words", "what it is"), DataColumn("label", "label"))
        return _without_empty(ChartData((DataColumn("series", "series"), x, y, *texts), rows))
    if isinstance(chart, RangeChart):
        names = dict(chart.legend)
        rows = [
            (lane.name, names.get(mark.kind, mark.kind), mark.low, mark.high, mark.words)
            for lane in chart.lanes
            for mark in lane.marks
        ]
        ends = (DataColumn("low", f"{chart.x.label}, from", True), DataColumn("high", "to", True))
        texts = (DataColumn("name", "name"), DataColumn("kind", "kind"))
        return _without_empty(ChartData((*texts, *ends, DataColumn("words", "what it is")), rows))
    rows = [(tile.row, tile.column, tile.value, tile.words) for tile in chart.tiles]
    names_of_axes = (DataColumn("row", chart.rows), DataColumn("column", chart.columns))
    value = DataColumn("value", chart.value, True)
    return _without_empty(ChartData((*names_of_axes, value, DataColumn("words", "what it is")), rows))


def _without_empty(data: ChartData) -> ChartData:
    """Leave out columns of texts that no row has, and rows with a difference too large for a float."""
    kept = [
        place
        for place, column in enumerate(data.columns)
        if column.field not in ("words", "label") or any(row[place] for row in data.rows)
    ]
    finite = (row for row in data.rows if all(isinstance(each, str) or isfinite(each) for each in row))
    rows = [tuple(row[place] for place in kept) for row in finite]
    return ChartData(tuple(data.columns[place] for place in kept), rows)


def specification(chart: Chart) -> Specification:
    """Return the Vega-Lite specification of a chart, without title, height and data."""
    fields = tuple(column.field for column in data_of(chart).columns)
    if isinstance(chart, XYChart):
        styles = tuple((each.name, each.colour, each.form, each.shape) for each in chart.series)
        labels = sum(bool(dot.label) for series in chart.series for dot in series.dots)
        return _plane(chart.x, chart.y, styles, ("words" in fields, 0 < labels <= MOST_LABELS))
    if isinstance(chart, RangeChart):
        present = {mark.kind for lane in chart.lanes for mark in lane.marks}
        kinds = tuple(kind for kind in _MARKS if kind in present)
        return _lanes(chart.x, kinds, chart.legend, "words" in fields)
    largest = (
        max(1.0, *(tile.value for tile in chart.tiles if isfinite(tile.value))) if chart.is_loss else None
    )
    return _tiles(chart.columns, chart.value, largest_loss=largest, words="words" in fields)


def height_of(chart: Chart) -> int:
    """Return the height of a chart in pixels, without its axes."""
    if isinstance(chart, XYChart):
        return _PLANE
    if isinstance(chart, RangeChart):
        return _LANE * len(chart.lanes)
    return (_LANE + 4) * len({tile.row for tile in chart.tiles})


@lru_cache(maxsize=256)
def _plane(x: Axis, y: Axis, styles: tuple[Style, ...], has: tuple[bool, bool]) -> Specification:
    """Return the specification of dots and lines; ``has`` tells whether there are words, and labels."""
    words, labels = has
    names = [name for name, *_ in styles]
    legend = alt.Legend(orient="bottom", symbolOpacity=1)
    colour = alt.Color("series:N", title=None, sort=names, legend=legend).scale(
        domain=names, range=[_colour(number) for _, number, *_ in styles]
    )
    shape = alt.Shape("series:N", title=None, sort=names, legend=legend).scale(
        domain=names, range=[SHAPES[number % len(SHAPES)] for *_, number in styles]
    )
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=x.label, scale=_scale(x)),
        y=alt.Y("y:Q", title=y.label, scale=_scale(y)),
        color=colour,
        tooltip=_tooltip(words, [("series", "", "N"), ("x", x.label, "Q"), ("y", y.label, "Q")]),
    )
    layers: list[Any] = []
    for form, of_form in _by_form(styles):
        only = base.transform_filter(alt.FieldOneOfPredicate(field="series", oneOf=of_form))
        if form in _LINES:
            layers.append(only.mark_line(**_LINES[form]).encode(order="x:Q"))
        else:
            layers.append(only.mark_point(filled=form == "dots", size=70, strokeWidth=2).encode(shape=shape))
    if labels:
        text = alt.Chart().transform_filter("datum.label").mark_text(align="left", dx=6, dy=-7)
        layers.append(text.encode(x="x:Q", y="y:Q", text="label:N"))
    return _plain(alt.layer(*layers).properties(width="container"))


def _by_form(styles: Sequence[Style]) -> Iterator[tuple[str, list[str]]]:
    for form in (*_LINES, "dots", "hollow"):
        if of_form := [name for name, _, own, _ in styles if own == form]:
            yield form, of_form


@lru_cache(maxsize=256)
def _lanes(
    x: Axis, kinds: tuple[MarkKind, ...], legend: tuple[tuple[MarkKind, str], ...], words: bool
) -> Specification:
    names = dict(legend)
    domain = [names.get(kind, kind) for kind in kinds]
    colour = alt.Color(
        "kind:N", title=None, sort=domain, legend=alt.Legend(orient="top") if legend else None
    ).scale(domain=domain, range=[_MARKS[kind][2] for kind in kinds])
    base = alt.Chart().encode(
        x=alt.X("low:Q", title=x.label, scale=_scale(x, padding=4)),
        y=alt.Y("name:N", title=None, sort=None),
        color=colour,
        tooltip=_tooltip(
            words, [("name", "", "N"), ("kind", "", "N"), ("low", x.label, "Q"), ("high", "to", "Q")]
        ),
    )
    layers: list[Any] = []
    for kind, name in zip(kinds, domain, strict=True):
        mark, properties, _ = _MARKS[kind]
        only = base.transform_filter(alt.FieldEqualPredicate(field="kind", equal=name))
        only = getattr(only, f"mark_{mark}")(**properties)
        layers.append(only.encode(x2="high:Q") if mark == "bar" else only)
    return _plain(alt.layer(*layers).properties(width="container"))


@lru_cache(maxsize=256)
def _tiles(columns: str, value: str, *, largest_loss: float | None, words: bool) -> Specification:
    """Return the specification of a heat map; a gain has the colour of no loss."""
    scheme = alt.Scale(scheme="yellowgreenblue")
    if largest_loss is not None:
        scheme = alt.Scale(scheme="orangered", domain=[0, largest_loss], clamp=True)
    base = alt.Chart().encode(
        x=alt.X("column:N", title=columns, sort=None, axis=alt.Axis(labelAngle=0, orient="top")),
        y=alt.Y("row:N", title=None, sort=None),
        tooltip=_tooltip(words, [("row", "", "N"), ("column", columns, "N"), ("value", value, "Q")]),
    )
    legend = alt.Legend(orient="bottom", gradientLength=180, titleLimit=360)
    rect = base.mark_rect().encode(color=alt.Color("value:Q", title=value, scale=scheme, legend=legend))
    dark = "luminance(scale('color', datum.value)) < 0.4"
    text = base.mark_text(fontSize=10).encode(
        text=alt.Text("value:Q", format=".1f" if largest_loss is None else ".2f"),
        color=alt.condition(dark, alt.value("white"), alt.value("black")),
    )
    return _plain(alt.layer(rect, text).properties(width="container"))


def _scale(axis: Axis, padding: int = 8) -> alt.Scale:
    zero: dict[str, Any] = {} if axis.scale == "log" else {"zero": False}
    return alt.Scale(type=axis.scale, nice=axis.scale == "linear", padding=padding, **zero)


def _tooltip(words: bool, fields: Sequence[tuple[str, str, str]]) -> list[alt.Tooltip]:
    """Return what a mark tells under the pointer: its words if it has any, else its numbers."""
    if words:
        return [alt.Tooltip("words:N", title=" ")]
    return [
        alt.Tooltip(f"{name}:{kind}", title=title or name)  # type: ignore[arg-type, unused-ignore]
        for name, title, kind in fields
    ]


def _colour(number: int) -> str:
    return GREY if number == MUTED else PALETTE[number % len(PALETTE)]


def _plain(chart: alt.LayerChart | alt.FacetChart) -> Specification:
    """Return a chart as JSON values, without Altair's own theme, which the page and the files replace."""
    tree: Specification = chart.to_dict()
    for part in (tree, *tree["layer"]):
        part.pop("data", None)
    del tree["config"]
    return {**tree, "autosize": {"type": "fit-x", "contains": "padding"}}
