"""The HTML page in a real browser: no requests or errors, sorting by mouse and keyboard, phone width."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from qexp.cli.report import main
from qexp.records.record import Record, write
from tests.support.chromium import Tab, chromium, executable
from tests.support.page_records import forty
from tests.support.record_factory import experiment, record

TABLES = "[...document.querySelectorAll('#tables table')]"
ORDER = f"[...{TABLES}[0].tHead.rows[0].cells].map(c => c.getAttribute('aria-sort'))"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of forty Records, as the command writes it."""
    outputs = tmp_path_factory.mktemp("outputs")
    hostile = record(experiment(model="<script>window.hacked = 1</script>"), source="sample")
    for run in [*forty(), Record(**{**vars(hostile), "key": "hostile"})]:
        write(run, outputs / "records")
    assert main(["--outputs", str(outputs), "--html"]) == 0
    return outputs / "report.html"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    executable()  # skips where there is none
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(tab: Tab, report: Path) -> Tab:
    tab.open(report, 1280)
    return tab


def column(tab: Tab, name: str, table: int = 0) -> list[str]:
    """Texts of a column, as they stand."""
    rows = f"[...{TABLES}[{table}].tBodies[0].rows]"
    found: list[str] = tab.value(f"{rows}.map(r => r.cells[{place(tab, name, table)}].textContent)")
    return found


def place(tab: Tab, name: str, table: int = 0) -> int:
    head = f"[...{TABLES}[{table}].tHead.rows[0].cells]"
    found: int = tab.value(f"{head}.findIndex(c => c.textContent === {name!r})")
    assert found >= 0, name
    return found


def header(tab: Tab, name: str) -> str:
    return f"#tables table thead th:nth-child({place(tab, name) + 1}) button"


def test_the_page_opens_without_a_request_or_a_complaint(page: Tab, report: Path) -> None:
    assert page.requests() == [report.as_uri()]
    assert page.complaints() == []
    assert page.value("performance.getEntriesByType('resource').length") == 0
    assert page.value("window.hacked") is None
    assert page.value("document.querySelectorAll('script').length") == 1


def test_the_page_s_own_policy_forbids_requests(page: Tab) -> None:
    blocked = (
        "new Promise(done => { "
        "document.addEventListener('securitypolicyviolation', e => done(e.violatedDirective)); "
        "document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'})); })"
    )
    answer = page.send("Runtime.evaluate", expression=blocked, awaitPromise=True, returnByValue=True)
    assert answer["result"]["value"] == "img-src"


def test_a_click_sorts_by_number_up_then_down_then_back(page: Tab) -> None:
    before = column(page, "QAT")
    numbers = [float(text.split()[0]) for text in before if text[0].isdigit()]
    words = [text for text in before if not text[0].isdigit()]
    assert len(numbers) > 2
    assert len(words) > 2
    assert numbers != sorted(numbers)
    for order, expected in (("ascending", sorted(numbers)), ("descending", sorted(numbers, reverse=True))):
        page.click(header(page, "QAT"))
        after = column(page, "QAT")
        assert [float(text.split()[0]) for text in after[: len(numbers)]] == expected
        assert sorted(after[len(numbers) :]) == sorted(words)
        assert page.value(ORDER).count("none") == len(page.value(ORDER)) - 1
        assert page.value(ORDER)[place(page, "QAT")] == order
    page.click(header(page, "QAT"))
    assert column(page, "QAT") == before
    assert set(page.value(ORDER)) == {"none"}


def test_sizes_sort_by_what_was_deployed_and_words_by_the_alphabet(page: Tab) -> None:
    page.click(header(page, "size (MiB)"))
    last = [
        float(text.split("-> ")[-1].split()[0]) for text in column(page, "size (MiB)") if text[0].isdigit()
    ]
    assert last == sorted(last)
    page.click(header(page, "model"))
    assert column(page, "model") == sorted(column(page, "model"))
    page.click(header(page, "quant"))
    assert sorted(column(page, "quant")) == column(page, "quant")


def test_rows_stay_whole_and_other_tables_as_they_are(page: Tab) -> None:
    rows = TABLES + "[{}].tBodies[0].rows"
    rows = f"[...{rows}].map(r => r.textContent)"
    first, second = page.value(rows.format(0)), page.value(rows.format(1))
    page.click(header(page, "PTQ"))
    assert page.value(rows.format(0)) != first
    assert sorted(page.value(rows.format(0))) == sorted(first)
    assert page.value(rows.format(1)) == second


@pytest.mark.parametrize(("key", "code"), [("Enter", 13), (" ", 32)])
def test_the_keyboard_reaches_a_header_and_sorts(page: Tab, key: str, code: int) -> None:
    page.value("document.querySelector('#tables .scroll').focus()")
    page.press("Tab", 9)
    assert page.value("document.activeElement.closest('th').cellIndex") == 0
    page.press("Tab", 9)
    page.press(key, code)
    assert page.value(ORDER)[:3] == ["none", "ascending", "none"]
    assert page.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_needs_scrolling_sideways(tab: Tab, report: Path, width: int) -> None:
    tab.open(report, width)
    assert tab.value("innerWidth") == width
    assert tab.value("document.documentElement.scrollWidth") <= width
    ends = "[...document.querySelectorAll('figure:not([hidden])')].map(e => e.getBoundingClientRect().right)"
    assert max(tab.value(ends)) <= width
    if width < 600:  # the tables themselves are wider, and scroll in their boxes
        boxes = "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth > e.clientWidth)"
        assert any(tab.value(boxes))


def test_text_in_charts_is_large_enough_on_a_phone(tab: Tab, report: Path) -> None:
    tab.open(report, 390)
    sizes = tab.value(
        "[...document.querySelectorAll('figure:not([hidden]) .drawing text')].map(e => "
        "parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.getScreenCTM().a)"
    )
    assert min(sizes) > 8.9


def test_a_chosen_run_is_shown_in_all_galleries(page: Tab) -> None:
    shown = (
        "['training-curves', 'sensitivity', 'activation-ranges'].map(id => "
        "[...document.querySelectorAll(`#${id} figure:not([hidden])`)].map(e => e.dataset.group))"
    )
    first = page.value(shown)
    assert all(len(each) == 1 for each in first)
    choose = (
        "(() => { const s = document.querySelector('#sensitivity select'); s.selectedIndex = 2; "
        "s.dispatchEvent(new Event('change')); return s.value; })()"
    )
    chosen = page.value(choose)
    assert [chosen] != first[1]
    assert page.value(shown) == [[chosen]] * 3
    assert page.value("document.querySelector('#training-curves select').value") == chosen


def test_marks_tell_their_numbers_to_who_hovers_and_who_taps(page: Tab) -> None:
    titles = page.value(
        "[...document.querySelectorAll('#accuracy-against-size .dot > title')].map(e => e.textContent)"
    )
    assert any("on the Pareto front" in each and "MiB" in each for each in titles)
    page.click("#seed-spread .drawing circle.dot")
    read = page.value("document.querySelector('#seed-spread figure .read').textContent")
    assert "seed " in read
    assert " %" in read


def test_the_page_is_dark_for_who_wants_it(tab: Tab, report: Path, tmp_path: Path) -> None:
    light = {}
    for dark in (False, True):
        tab.open(report, 1280, 900, dark=dark)
        tab.screenshot(tmp_path / "seen.png", whole=False)
        with Image.open(tmp_path / "seen.png") as picture:
            assert picture.size == (1280, 900)
            light[dark] = statistics.median(picture.convert("L").resize((64, 45)).tobytes())
    assert light[False] > 230
    assert light[True] < 40


def test_without_scripts_every_chart_is_shown(tab: Tab, report: Path) -> None:
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(report, 1280)
        seen = "[...document.querySelectorAll('figure')].filter(e => e.offsetHeight).length"
        assert tab.value(seen) == tab.value("document.querySelectorAll('figure').length")
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)
