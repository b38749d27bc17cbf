"""Charts as SVG inside a page, with real text, the page's colours, and the numbers of each mark as tooltip.

Coordinates assume a chart of width ``WIDTH``, which the page scales.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from qexp.reporting.charts.axes import AxisScale, printed, ruler
from qexp.reporting.charts.spec import COLOURS, MUTED, Chart, Dot, Mark, RangeChart, Series, XYChart

WIDTH = 400
HEIGHT = 300
"""Height of a :class:`XYChart`."""
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 8, 40
LANE, NAME = 26, 12
"""Height of a lane, and the part of it that its name takes."""
TALL = 12
"""Number of lanes above which a chart repeats its ticks at the top."""
LETTER = 5.6
"""Average width of a letter."""
CLOSE = 13
"""Distance below which lines of text overlap."""


def svg(chart: Chart) -> str:
    """Draw a chart without its title, legend and notes."""
    height, parts = _plane(chart) if isinstance(chart, XYChart) else _lanes(chart)
    opening = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(chart.title)}">'
    return "\n".join([opening, *parts, "</svg>"])


def legend(chart: Chart) -> str:
    """Return the names of series or marks with a sample of each; empty if no series or mark is named."""
    if isinstance(chart, XYChart):
        samples = [(series.name, _series_sample(series)) for series in chart.series]
    else:
        samples = [(name, _mark_sample(mark)) for name, mark in chart.legend]
    items = "".join(
        f'<li><svg viewBox="0 0 20 14" aria-hidden="true">{drawn}</svg>{escape(name)}</li>'
        for name, drawn in samples
        if name
    )
    return f'<ul class="legend">{items}</ul>' if items else ""


def _plane(chart: XYChart) -> tuple[float, list[str]]:
    dots = [dot for series in chart.series for dot in series.dots]
    x = ruler(chart.x.scale, (dot.x for dot in dots), LEFT, WIDTH - RIGHT)
    y = ruler(chart.y.scale, (dot.y for dot in dots), HEIGHT - BOTTOM, TOP)
    parts = [*_x_axis(x, TOP, HEIGHT - BOTTOM, chart.x.label), *_y_axis(y, chart.y.label)]
    for series in chart.series:
        parts += _lines(series, x, y)
    for series in chart.series:
        if series.form in ("dots", "hollow"):
            parts += [_dot(dot, series, x.at(dot.x), y.at(dot.y)) for dot in series.dots]
        elif len(series.dots) == 1 and series.form == "line":
            parts.append(_dot(series.dots[0], series, x.at(series.dots[0].x), y.at(series.dots[0].y)))
    return HEIGHT, [*parts, *_labels(dots, x, y)]


def _x_axis(x: AxisScale, top: float, bottom: float, label: str) -> Iterator[str]:
    for value in x.ticks():
        place = x.at(value)
        yield f'<path class="grid" d="M{place:.1f} {top}V{bottom:g}"/>'
        yield _text(place, bottom + 14, printed(value), anchor="middle")
    yield _text((x.start + x.end) / 2, bottom + 31, label, anchor="middle")


def _y_axis(y: AxisScale, label: str) -> Iterator[str]:
    for value in y.ticks():
        place = y.at(value)
        yield f'<path class="grid" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>'
        yield _text(LEFT - 5, place + 4, printed(value), anchor="end")
    middle = (y.start + y.end) / 2
    turned = f'text-anchor="middle" transform="translate(10 {middle:g}) rotate(-90)"'
    yield f"<text {turned}>{escape(label)}</text>"


def _lines(series: Series, x: AxisScale, y: AxisScale) -> Iterator[str]:
    places = [(x.at(dot.x), y.at(dot.y)) for dot in series.dots]
    if series.form == "front" and places:
        steps = "".join(f"H{across:.1f}V{up:.1f}" for across, up in places)
        start = f"M{places[0][0]:.1f} {y.start:g}"
        yield f'<path class="front {_colour(series.colour)}" d="{start}{steps}H{x.end:g}"/>'
    elif series.form == "line":
        points = " ".join(f"{across:.1f},{up:.1f}" for across, up in places)
        line = f'<polyline class="line {_colour(series.colour)}" points="{points}"/>'
        yield line
        for dot, (across, up) in zip(series.dots, places, strict=True):
            yield f'<circle class="touch" cx="{across:.1f}" cy="{up:.1f}" r="5">{_title(dot.words)}</circle>'


def _dot(dot: Dot, series: Series, x: float, y: float) -> str:
    hollow = " hollow" if series.form == "hollow" else ""
    drawn = _shape(series.shape, x, y)
    return f'<path class="dot{hollow} {_colour(series.colour)}" d="{drawn}">{_title(dot.words)}</path>'


def _shape(shape: int, x: float, y: float, r: float = 5) -> str:
    """Return the outline of a circle, square, diamond or triangle around a point."""
    outlines = (
        f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z",
        f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z",
        f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {r + 1}l{-r - 1} {r + 1}l{-r - 1} {-r - 1}z",
        f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {2 * r}h{-2 * r - 2}z",
    )
    return outlines[shape % len(outlines)]


def _labels(dots: Sequence[Dot], x: AxisScale, y: AxisScale) -> Iterator[str]:
    """Yield labels beside their dots, on the side with more room; those that would overlap are left out."""
    taken: list[tuple[float, float, float]] = []
    for dot in sorted((dot for dot in dots if dot.label), key=lambda dot: (-dot.y, dot.x)):
        place, up, width = x.at(dot.x), y.at(dot.y) - 8, len(dot.label) * LETTER
        right = place + width < WIDTH - 2
        start = place - 4 if right else place + 4 - width
        up = max(up, TOP + 8)
        free = all(abs(up - at) > CLOSE or start > end or start + width < begin for begin, end, at in taken)
        if free and start > LEFT:
            taken.append((start, start + width, up))
            yield _text(
                start if right else place + 4,
                up,
                text=dot.label,
                anchor="start" if right else "end",
                kind="label",
            )


def _lanes(chart: RangeChart) -> tuple[float, list[str]]:
    ends = [end for lane in chart.lanes for mark in lane.marks for end in (mark.low, mark.high)]
    x = ruler(chart.x.scale, ends, LEFT / 2, WIDTH - RIGHT, pad=0.03)
    above = TOP + 12 if len(chart.lanes) > TALL else TOP
    bottom = above + LANE * len(chart.lanes) + 6
    parts = [*_x_axis(x, above, bottom, chart.x.label)]
    if above > TOP:
        parts += [_text(x.at(value), above - 5, printed(value), anchor="middle") for value in x.ticks()]
    if chart.x.scale != "log" and min(ends) <= 0 <= max(ends):
        parts.append(f'<path class="zero" d="M{x.at(0):.1f} {above}V{bottom:g}"/>')
    for index, lane in enumerate(chart.lanes):
        top = above + LANE * index
        most = int((WIDTH - 8) / LETTER)
        parts.append(
            _text(
                4,
                top + NAME - 2,
                text=shortened(lane.name, most),
                anchor="start",
                kind="label",
                words=lane.name,
            )
        )
        parts += [_mark(mark, x, top + NAME + (LANE - NAME) / 2 - 1) for mark in lane.marks]
    return bottom + BOTTOM, parts


def _mark(mark: Mark, x: AxisScale, middle: float) -> str:
    low, colour, title = x.at(mark.low), _colour(mark.colour), _title(mark.words)
    width = max(x.at(mark.high) - low, 1)
    if mark.kind in ("dot", "ring"):
        kind = "dot hollow" if mark.kind == "ring" else "dot"
        return f'<circle class="{kind} {colour}" cx="{low:.1f}" cy="{middle:.1f}" r="4.5">{title}</circle>'
    if mark.kind == "median":
        box = f'x="{low - 1.25:.1f}" y="{middle - 7:.1f}" width="2.5" height="14"'
    else:
        half = 5 if mark.kind == "seen" else 2.5
        box = f'x="{low:.1f}" y="{middle - half:.1f}" width="{width:.1f}" height="{2 * half:g}"'
    return f'<rect class="{mark.kind} {colour}" {box}>{title}</rect>'


def _series_sample(series: Series) -> str:
    colour = _colour(series.colour)
    if series.form in ("line", "front"):
        return f'<path class="{series.form} {colour}" d="M1 7H19"/>'
    hollow = " hollow" if series.form == "hollow" else ""
    return f'<path class="dot{hollow} {colour}" d="{_shape(series.shape, 10, 7)}"/>'


def _mark_sample(mark: Mark) -> str:
    line = ruler("linear", (0, 1), 3, 17, pad=0)
    low = 0 if mark.kind in ("bar", "seen") else 0.5
    return _mark(Mark(low, 1, kind=mark.kind, words="", colour=mark.colour), line, 7)


def shortened(text: str, most: int) -> str:
    """Shorten a long text to its end, because names differ at their ends."""
    return text if len(text) <= most else "…" + text[-most + 1 :]


def _text(x: float, y: float, text: str, *, anchor: str, kind: str = "", words: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    inner = (_title(words) if words else "") + escape(text)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{inner}</text>'


def _title(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""


def _colour(number: int) -> str:
    return "muted" if number == MUTED else f"c{number % COLOURS}"
