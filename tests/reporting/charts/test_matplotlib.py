"""Charts as files: valid images, real text, and reproducible files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from qexp.errors import StoreError
from qexp.reporting.charts import matplotlib
from qexp.reporting.charts.matplotlib import draw, write_plots
from qexp.reporting.charts.spec import Axis, Chart, Dot, Gallery, Lane, Mark, RangeChart, Series, XYChart

HOSTILE = 'a $\\frac{$ <b> & "c"'
PLANE = XYChart(
    "cola/size", "cola", f"cola {HOSTILE}", Axis("MiB", "log"), Axis("f1 (%)"),
    (
        Series("Pareto front", (Dot(1, 80), Dot(90, 88)), -1, "front"),
        Series(HOSTILE, (Dot(1, 80, "w", HOSTILE), Dot(90, 88)), 1, "dots", 2),
        Series("hollow", (Dot(3, 70),), 9, "hollow", 7),
        Series("one step", (Dot(3, 70),), 2, "line"),
    ),
    ("Left out: 3.",),
)  # fmt: skip
LANES = RangeChart(
    "cola size", "cola", "ranges", Axis("value", "asinh"),
    (
        Lane(HOSTILE, (Mark(-900, 4, "seen"), Mark(-4, 4, "bar", colour=1))),
        Lane("b", (Mark(1, 1, "median"), Mark(1, 1, "dot"), Mark(2, 2, "ring"))),
    ),
    (("quantized", Mark(0, 1, "bar")), ("median", Mark(0, 0, "median"))),
)  # fmt: skip


def of(*charts: Chart) -> list[Gallery]:
    return [Gallery("g", "", charts, "", "")]


def test_each_chart_is_a_png_and_an_svg_with_text(tmp_path: Path) -> None:
    paths = write_plots(of(PLANE, LANES), tmp_path / "plots")
    names = ["cola-size.png", "cola-size.svg", "cola-size-2.png", "cola-size-2.svg"]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(names)
    for path in paths[::2]:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 900
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10
    for path in paths[1::2]:
        texts = [each.text for each in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
        assert HOSTILE in texts
    plane = [each.text for each in ElementTree.parse(paths[1]).iter("{http://www.w3.org/2000/svg}text")]
    assert {"MiB", "f1 (%)", "Pareto front", "Left out: 3."} <= set(plane)


def test_the_same_chart_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_plots(of(LANES), tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_axes_are_those_of_the_chart() -> None:
    (axes,) = draw(PLANE).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    (axes,) = draw(LANES).axes
    assert axes.get_xscale() == "asinh"
    assert [label.get_text() for label in axes.get_yticklabels()] == [HOSTILE, "b"]


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(matplotlib.os, "replace", refuse)
    with pytest.raises(StoreError, match=r"cola-size.png: No space left on device; make room"):
        write_plots(of(PLANE), tmp_path)
    assert list(tmp_path.iterdir()) == []
