"""What fits a window of the HTML page: columns of the runs, and labels of charts, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qexp.cli.report import main
from qexp.records.record import write
from tests.support.chromium import Tab, chromium, executable
from tests.support.page_records import forty
from tests.support.verdict_records import MIB, engine, judged

BOX = "document.querySelector('#runs .scroll')"
HINT = "document.querySelector('#runs .sideways')"
OVERLAPS = """(() => {
  const seen = e => e.textContent && getComputedStyle(e).opacity !== "0";
  return [...document.querySelectorAll('figure:not([hidden]) .drawing')].flatMap(drawing => {
  const texts = [...drawing.querySelectorAll('text')].filter(seen);
  const boxes = texts.map(e => [e.textContent, e.getBoundingClientRect()]);
  return boxes.flatMap(([a, x], i) => boxes.slice(i + 1).filter(([b, y]) =>
    x.left < y.right - 1 && y.left < x.right - 1 && x.top < y.bottom - 3 && y.top < x.bottom - 3
  ).map(([b, y]) => `${a} | ${b}`));
  });
})()"""
"""Pairs of texts of a chart that cover each other by more than the leading of a line."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    executable()  # skips where there is none
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of some runs of one model, whose scores, sizes and latencies are close to each other."""
    outputs = tmp_path_factory.mktemp("few")
    runs = [("w8a8", -0.1, 22.0, 5.0), ("w4a8", -0.12, 21.6, 4.9), ("w8a16", -0.08, 22.4, 5.1)]
    for quant, points, size, p50 in runs:
        for placement in ("gemm", "gemm_tables"):
            shift = 0.01 if placement == "gemm" else 0.0
            run = judged(
                points + shift,
                quant=quant,
                sections={"placement": {"name": placement}},
                bytes={"fp32": 88 * MIB, "int8": int((size + shift) * MIB)},
                engines={"onnxruntime/fp32": engine(12.0), "onnxruntime/int8": engine(p50 + shift)},
            )
            write(run, outputs / "records")
    assert main(["--outputs", str(outputs), "--html"]) == 0
    return outputs / "report.html"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("many")
    for run in forty():
        write(run, outputs / "records")
    assert main(["--outputs", str(outputs), "--html"]) == 0
    return outputs / "report.html"


def opened(tab: Tab, report: Path, width: int) -> None:
    """Open the page, and wait until the charts are drawn and the sizes of tables are known."""
    tab.open(report, width)
    waited = (
        "Promise.all([...document.querySelectorAll('figure')].map(f => f.drawn))"
        ".then(() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))).then(() => true)"
    )
    answer = tab.send("Runtime.evaluate", expression=waited, awaitPromise=True, returnByValue=True)
    assert answer["result"]["value"] is True, answer


def test_runs_of_one_model_fit_a_window_of_1280_pixels(tab: Tab, few: Path) -> None:
    opened(tab, few, 1280)
    assert tab.value(f"{BOX}.scrollWidth <= {BOX}.clientWidth + 1")
    assert tab.value(f"getComputedStyle({HINT}).display") == "none"
    heads = tab.value(f"[...{BOX}.querySelectorAll('th')].map(e => e.textContent)")
    assert "key" in heads and "recipe" not in heads and "control (%)" not in heads, "columns without a value"


@pytest.mark.parametrize("which", ["few", "many"])
def test_a_table_that_does_not_fit_says_so_and_a_button_scrolls_it(
    tab: Tab, which: str, request: pytest.FixtureRequest
) -> None:
    opened(tab, request.getfixturevalue(which), 700)
    assert tab.value(f"getComputedStyle({HINT}).display") != "none"
    for button, moves in (("last-of-type", True), ("first-of-type", False)):
        tab.click(f"#runs .sideways button:{button}")
        assert (tab.value(f"{BOX}.scrollLeft") > 0) is moves


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("which", ["few", "many"])
def test_no_text_of_a_chart_covers_another(
    tab: Tab, which: str, width: int, request: pytest.FixtureRequest
) -> None:
    opened(tab, request.getfixturevalue(which), width)
    assert tab.value("document.querySelectorAll('figure:not([hidden]) .drawing text').length") > 20
    assert tab.value(OVERLAPS) == []
    if which == "few":
        labels = "[...document.querySelectorAll('.mark-text.role-mark text')].filter(e => e.textContent)"
        assert tab.value(f"{labels}.length") > 0, "labels that were all left out cover nothing"
