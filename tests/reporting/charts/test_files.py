"""Charts as files: valid images, real text, and reproducible files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from qexp.errors import StoreError
from qexp.reporting.charts import files
from qexp.reporting.charts.files import with_data, write_plots
from qexp.reporting.charts.spec import (
    Axis,
    Chart,
    Dot,
    Gallery,
    HeatMap,
    Lane,
    Mark,
    RangeChart,
    Series,
    Tile,
    XYChart,
)
from qexp.reporting.charts.vega import PALETTE, data_of

HOSTILE = 'a $\\frac{$ <b> & "c"'
PLANE = XYChart(
    "cola/size", "cola", f"cola {HOSTILE}", Axis("MiB", "log"), Axis("f1 (%)"),
    (
        Series("Pareto front", (Dot(1, 80), Dot(90, 88)), -1, "front"),
        Series(HOSTILE, (Dot(1, 80, "w", "labelled"), Dot(90, 88)), 1, "dots", 2),
        Series("hollow", (Dot(3, 70),), 9, "hollow", 7),
        Series("one step", (Dot(3, 70),), 2, "line"),
        Series("shares", (Dot(1, 70), Dot(9, 80)), 3, "steps"),
    ),
    ("Left out: 3.",),
)  # fmt: skip
LANES = RangeChart(
    "cola size", "cola", "ranges", Axis("value", "symlog"),
    (
        Lane(HOSTILE, (Mark(-900, 4, "seen"), Mark(-4, 4, "bar"))),
        Lane("b", (Mark(1, 1, "median"), Mark(1, 1, "dot"), Mark(2, 2, "ring"), Mark(3, 3, "outlier"))),
    ),
    (("bar", "quantized"), ("median", "median")),
)  # fmt: skip
TILES = HeatMap(
    "loss", "all", "losses", "bit-widths", "task", "loss (points)",
    (Tile("w8a8", "cola", 0.25), Tile("w4a8", "cola", 30.0), Tile("w8a8", HOSTILE, -1.0)), is_loss=True,
)  # fmt: skip


def of(*charts: Chart) -> list[Gallery]:
    return [Gallery("g", "", charts, "", "")]


def test_each_chart_is_a_png_and_an_svg_with_text(tmp_path: Path) -> None:
    paths = write_plots(of(PLANE, LANES, TILES), tmp_path / "plots")
    names = ["cola-size.png", "cola-size.svg", "cola-size-2.png", "cola-size-2.svg", "loss.png", "loss.svg"]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(names)
    for path in paths[::2]:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 400
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10
    for path in paths[1::2]:
        texts = [each.text for each in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
        assert any(text and HOSTILE in text for text in texts), path
    plane = [each.text for each in ElementTree.parse(paths[1]).iter("{http://www.w3.org/2000/svg}text")]
    assert {"MiB", "f1 (%)", "Pareto front", "labelled", "Left out: 3."} <= set(plane)


def test_the_same_chart_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_plots(of(LANES), tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_every_mark_is_drawn_and_no_other(tmp_path: Path) -> None:
    write_plots(of(PLANE, LANES, TILES), tmp_path)

    def marks(name: str, kind: str) -> int:
        paths = ElementTree.parse(tmp_path / f"{name}.svg").iter("{http://www.w3.org/2000/svg}path")
        return sum(path.get("aria-roledescription") == kind for path in paths)

    assert marks("cola-size", "point") == 3 + 1 + 2  # the points of lines, too
    assert marks("cola-size", "line mark") == 3
    assert (marks("cola-size-2", "bar"), marks("cola-size-2", "point"), marks("cola-size-2", "tick")) == (
        2,
        3,
        1,
    )
    assert marks("loss", "rect mark") + marks("loss", "rect") == 3


def test_axes_are_those_of_the_chart() -> None:
    assert with_data(PLANE)["layer"][0]["encoding"]["x"]["scale"]["type"] == "log"
    assert with_data(PLANE)["layer"][0]["encoding"]["y"]["title"] == "f1 (%)"
    assert with_data(LANES)["layer"][0]["encoding"]["x"]["scale"]["type"] == "symlog"


def test_the_table_of_a_chart_has_all_its_numbers() -> None:
    assert {(value["x"], value["y"]) for value in data_of(PLANE).values} == {
        (1, 80),
        (90, 88),
        (3, 70),
        (1, 70),
        (9, 80),
    }
    assert [column.title for column in data_of(LANES).columns] == ["name", "kind", "value, from", "to"]
    kinds = ["seen", "quantized", "median", "dot", "ring", "outlier"]
    assert [row[1] for row in data_of(LANES).rows] == kinds
    assert data_of(TILES).rows[0] == ("cola", "w8a8", 0.25)


@pytest.mark.parametrize("colour", PALETTE)
def test_colours_stand_out_from_both_pages(colour: str) -> None:
    """WCAG 2.1, 1.4.11: a graphical object has a contrast of 3 to what is beside it."""

    def luminance(code: str) -> float:
        parts = (int(code[place : place + 2], 16) / 255 for place in (1, 3, 5))
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, own, dark = luminance("#ffffff"), luminance(colour), luminance("#14171b")
    assert (light + 0.05) / (own + 0.05) >= 3
    assert (own + 0.05) / (dark + 0.05) >= 3


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(StoreError, match=r"cola-size.png: No space left on device; make room"):
        write_plots(of(PLANE), tmp_path)
    assert list(tmp_path.iterdir()) == []
