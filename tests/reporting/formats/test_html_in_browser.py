"""The HTML page in a real browser: no requests or errors, charts, sorting, filters, keyboard, phone width."""

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

pytestmark = pytest.mark.slow

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
    opened(tab, report, 1280)
    return tab


def opened(tab: Tab, report: Path, width: int, height: int = 844, *, dark: bool = False) -> None:
    """Open the page, and wait until the charts that are to be seen are drawn."""
    tab.open(report, width, height, dark=dark)
    drawn = "Promise.all([...document.querySelectorAll('figure')].map(f => f.drawn)).then(() => true)"
    answer = tab.send("Runtime.evaluate", expression=drawn, awaitPromise=True, returnByValue=True)
    assert answer["result"]["value"] is True, answer


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


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_opens_without_a_request_or_a_complaint(tab: Tab, report: Path, width: int) -> None:
    opened(page := tab, report, width)
    assert page.requests() == [report.as_uri()]
    assert page.complaints() == []
    assert page.value("performance.getEntriesByType('resource').length") == 0
    assert page.value("window.hacked") is None
    assert page.value("document.querySelectorAll('script').length") == 3


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


@pytest.mark.parametrize("width", [320, 400, 768, 1280])
def test_no_width_needs_scrolling_sideways(tab: Tab, report: Path, width: int) -> None:
    opened(tab, report, width)
    assert tab.value("innerWidth") == width
    assert tab.value("document.documentElement.scrollWidth") <= width
    ends = "[...document.querySelectorAll('figure:not([hidden])')].map(e => e.getBoundingClientRect().right)"
    assert max(tab.value(ends)) <= width
    if width < 600:  # the tables themselves are wider, and scroll in their boxes
        boxes = "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth > e.clientWidth)"
        assert any(tab.value(boxes))


def test_text_in_charts_is_large_enough_on_a_phone(tab: Tab, report: Path) -> None:
    opened(tab, report, 390)
    sizes = tab.value(
        "[...document.querySelectorAll('figure:not([hidden]) .drawing text')].filter(e => e.textContent)"
        ".map(e => "
        "parseFloat(getComputedStyle(e).fontSize) * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b))"
    )
    assert min(sizes) > 8.9


def test_every_chart_has_a_mark_for_each_of_its_numbers(page: Tab) -> None:
    """Lines are one mark each; all other rows of the table below a chart are a mark of their own."""
    page.value(
        "for (const f of document.querySelectorAll('figure')) { f.hidden = false; if (!f.drawn) draw(f); }"
    )
    page.value("1")
    answer = page.send(
        "Runtime.evaluate", returnByValue=True, awaitPromise=True,
        expression="Promise.all([...document.querySelectorAll('figure')].map(f => f.drawn.then(() => ["
        "f.closest('section').id, f.querySelectorAll('.data tbody tr').length, "
        "[...f.querySelectorAll('.data tbody tr')].filter(r => r.cells[0].textContent === 'Pareto front')"
        ".length, "
        "f.querySelectorAll('.drawing :is(.mark-symbol,.mark-rect) path[aria-roledescription]').length])))",
    )  # fmt: skip
    found = answer["result"]["value"]
    assert len(found) > 80
    for section, rows, on_front, marks in found:
        assert marks == rows - on_front > 0, section
    assert page.complaints() == []


def test_words_of_a_row_filter_the_runs_and_their_number_is_announced(page: Tab) -> None:
    shown = "[...document.querySelectorAll('#runs tbody tr:not([hidden])')].map(r => r.textContent)"
    everything = page.value(shown)
    page.value("document.querySelector('#runs .filter input').focus()")
    page.send("Input.insertText", text="COLA w4a8 qat")
    rows = page.value(shown)
    assert 0 < len(rows) < len(everything)
    assert rows == [row for row in everything if all(word in row for word in ("cola", "w4a8", "qat"))]
    assert (
        page.value("document.querySelector('#runs output').textContent")
        == f"{len(rows)} of {len(everything)} rows"
    )
    page.value("document.querySelector('#runs th:nth-child(2) button').click()")
    assert page.value(shown) == rows


def test_another_theme_of_the_system_draws_the_charts_again(page: Tab) -> None:
    fill = "getComputedStyle(document.querySelector('#seed-spread .drawing .role-axis-label text')).fill"
    light = page.value(fill)
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    page.send("Emulation.setEmulatedMedia", features=[scheme])
    waited = "new Promise(done => setTimeout(() => requestAnimationFrame(() => drawn().then(done)), 50))"
    page.value("window.drawn = () => Promise.all([...document.querySelectorAll('figure')].map(f => f.drawn))")
    page.send("Runtime.evaluate", expression=waited, awaitPromise=True)
    assert page.value(fill) != light
    assert page.complaints() == []


def test_the_key_stays_in_sight_while_a_table_scrolls(tab: Tab, report: Path) -> None:
    opened(tab, report, 400)
    tab.value("document.querySelector('#runs .scroll').scrollLeft = 600")
    place = "document.querySelector('#runs tbody td').getBoundingClientRect().left"
    box = "document.querySelector('#runs .scroll').getBoundingClientRect().left"
    assert tab.value(place) == pytest.approx(tab.value(box), abs=2)


def test_a_legend_fits_a_phone(tab: Tab, report: Path) -> None:
    opened(tab, report, 400)
    texts = "[...document.querySelectorAll('.drawing .role-legend text')]"
    ends = f"{texts}.map(e => e.getBoundingClientRect().right)"
    assert 0 < max(tab.value(ends)) <= 400


def test_names_and_roles_that_a_screen_reader_needs_are_there(page: Tab) -> None:
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    named = {}
    for node in tree:
        if not node.get("ignored"):
            named.setdefault(node.get("role", {}).get("value"), []).append(
                node.get("name", {}).get("value", "")
            )
    assert "qexp report" in named["heading"]
    assert "Skip to the verdict" in named["link"]
    assert all(named["region"])
    assert all(named["combobox"])
    assert all(named["searchbox"])
    drawings = (
        "[...document.querySelectorAll('.drawing svg')].map(e => (e.matches('[aria-label]') ? e : "
        "e.querySelector('[aria-label]')).getAttribute('aria-label'))"
    )
    assert all(page.value(drawings))


def test_failed_runs_are_folded_at_the_end(page: Tab) -> None:
    assert page.value("[...document.querySelectorAll('section')].at(-1).id") == "failed-runs"
    assert page.value("document.querySelector('#failed-runs details').open") is False
    page.click("#failed-runs summary")
    assert page.value("document.querySelector('#failed-runs table').offsetHeight") > 0


def test_a_chosen_run_is_shown_in_all_galleries(page: Tab) -> None:
    shown = (
        "['training-curves', 'sensitivity', 'activation-ranges', 'gate'].map(id => "
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
    assert page.value(shown) == [[chosen]] * 4
    assert page.value("document.querySelector('#training-curves select').value") == chosen


def test_marks_tell_their_numbers_to_who_hovers(page: Tab) -> None:
    place = page.value(
        "(() => { const e = document.querySelector('#seed-spread .mark-symbol path'); "
        "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect(); "
        "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    read = page.value("document.querySelector('#vg-tooltip-element')?.textContent")
    assert "seed " in read
    assert " %" in read


def test_the_page_is_dark_for_who_wants_it(tab: Tab, report: Path, tmp_path: Path) -> None:
    light = {}
    for dark in (False, True):
        opened(tab, report, 1280, 900, dark=dark)
        tab.screenshot(tmp_path / "seen.png", whole=False)
        with Image.open(tmp_path / "seen.png") as picture:
            assert picture.size == (1280, 900)
            light[dark] = statistics.median(picture.convert("L").resize((64, 45)).tobytes())
    assert light[False] > 230
    assert light[True] < 40


def test_without_scripts_the_numbers_of_every_chart_are_shown(tab: Tab, report: Path) -> None:
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(report, 1280)
        seen = "[...document.querySelectorAll('figure details.data')].filter(e => e.offsetHeight).length"
        assert tab.value(seen) == tab.value("document.querySelectorAll('figure').length") > 80
        tab.value("for (const each of document.querySelectorAll('details.data')) each.open = true")
        tables = "[...document.querySelectorAll('figure table')].filter(e => e.offsetHeight).length"
        assert tab.value(tables) == tab.value(seen)
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)
