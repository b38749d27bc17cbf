"""Charts as PNG and SVG files, drawn by vl-convert from the specifications of the page."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from qexp.errors import StoreError
from qexp.reporting.charts.spec import Chart, Gallery, HeatMap
from qexp.reporting.charts.vega import data_of, height_of, specification

WIDTH = 560
_LONGEST = 120
_CONFIG: Any = {
    "background": "white",
    "view": {"stroke": None},
    "axis": {"gridColor": "#e4e7eb", "labelLimit": 320, "titleFontWeight": "normal"},
    "legend": {"labelLimit": 400, "columns": 2},
    "title": {"anchor": "start", "fontSize": 13, "subtitleColor": "#5b6470"},
}


def write_plots(galleries: Iterable[Gallery], folder: Path) -> list[Path]:
    """Write ``<chart>.png`` and ``<chart>.svg`` for each chart, and return their paths.

    Raises:
        StoreError: If the folder cannot be written.
    """
    from vl_convert import vegalite_to_svg

    charts = [chart for gallery in galleries for chart in gallery.charts]
    paths = []
    for name, chart in zip(_file_names(charts), charts, strict=True):
        paths += [folder / f"{name}.png", folder / f"{name}.svg"]
        _save(png_of(chart, scale=2), paths[-2])
        _save(vegalite_to_svg(with_data(chart)).encode(), paths[-1])
    return paths


def png_of(chart: Chart, scale: float = 1) -> bytes:
    """Return a chart as a PNG file of ``scale`` pixels for each pixel of the page."""
    from vl_convert import vegalite_to_png

    png: bytes = vegalite_to_png(with_data(chart), scale=scale)
    return png


def with_data(chart: Chart) -> dict[str, Any]:
    """Return the specification of a chart that stands alone, with title, notes and data."""
    title = {"text": chart.title, "subtitle": list(chart.notes)}
    width = {"step": 64} if isinstance(chart, HeatMap) else WIDTH
    size = {"width": width, "height": height_of(chart), "autosize": "pad"}
    data = {"values": data_of(chart).values}
    return {**specification(chart), **size, "title": title, "data": data, "config": _CONFIG}


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


def _save(content: bytes, path: Path) -> None:
    """Write a file atomically."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(
            f"--plots {path}: {error.strerror or error}; make room or name another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
