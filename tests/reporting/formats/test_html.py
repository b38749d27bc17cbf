"""The HTML page as text: well-formed, complete, escaped, and bounded in size."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qexp.cli import pictures
from qexp.cli.report import main
from qexp.errors import INVALID
from qexp.records.record import Record
from qexp.reporting.charts.run import MOST_OF_TASK, MOST_RUNS
from qexp.reporting.comparison import compare
from qexp.reporting.formats import html as pages
from qexp.reporting.formats.html import environment, page, sort_number
from qexp.reporting.run_view import RunView
from qexp.reporting.table import Table
from qexp.reporting.tables import runs as run_tables
from qexp.reporting.tables.comparison import table_of
from qexp.reporting.verdict.verdict import verdicts_of
from tests.support.page_records import HOSTILE, forty, full, outliers, ranges
from tests.support.record_factory import ENGINES, deployed, experiment, failed, interrupted, parity, record

VOID = {"meta", "br", "link", "img", "input"}
SECTIONS = (
    *(
        "verdict",
        "runs",
        "loss-against-latency",
        "loss-against-size",
        "loss-by-task-and-width",
        "seed-spread",
    ),
    *("training-curves", "sensitivity", "sensitivity-by-layer", "activation-ranges"),
    *("outlier-dimensions", "gate", "gate-distribution"),
    *("overview", "tables", "failed-runs"),
)


class Parsed(HTMLParser):
    """Tags with their attributes, text by the tag that it stands in, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, *within: str) -> str:
        return "\n".join(data for tag, data in self.texts if not within or tag in within)


def parsed(records: list[Record], overviews: list[Table] | None = None, **words: Any) -> Parsed:
    comparisons = compare(records)
    return Parsed(page(comparisons, records, overviews or [], verdicts=verdicts_of(comparisons), **words))


def table_html(table: Table) -> str:
    parts: Any = environment().get_template("parts.html").module
    return str(parts.table(table, 3, ""))


def test_every_section_is_there_and_filled() -> None:
    found = parsed(forty(), [Table("All tasks", ("model", "mean"), (("minilm", "80.00"),))])
    assert tuple(each["id"] for each in found.all("section")) == SECTIONS
    links = [each["href"] for each in found.all("a")]
    assert links == ["#main", *(f"#{name}" for name in SECTIONS)]
    assert not [each for each in found.all("p") if each.get("class") == "empty"]
    assert {"All tasks", "cola", "mrpc"} <= set(found.text("h3").split("\n"))
    assert len(found.all("figure")) == 3 * 2 + 1 + 7 * 2 * MOST_OF_TASK


def test_the_verdict_comes_first_with_the_next_command() -> None:
    runs = [
        deployed(
            experiment("mrpc", method={"kind": "ptq"}), scores={"fp32": {"f1": 80.0}, "ptq": {"f1": 80.0}}
        )
    ]
    runs = [replace(runs[0], engines={"onnxruntime/int8": {"gate": {**parity(True), "verdict": "passed"}}})]
    text = page(compare(runs), runs, verdicts=verdicts_of(compare(runs)))
    found = Parsed(text)
    assert text.index('class="verdict deployable"') < text.index('id="runs"')
    assert "mrpc: W8A8 PTQ is deployable in ONNX Runtime by its measured score" in found.text("h3")
    assert f"qexp publish {runs[0].key[:8]} FOLDER" in found.text("code")


def test_runs_have_their_key_and_what_they_differ_in_from_the_one_above() -> None:
    runs = [
        record(experiment("cola", quant=quant, seed=1), key=f"{quant}{'0' * 12}")
        for quant in ("w8a8", "w4a8")
    ]
    runs += [record(experiment("cola", quant="w4a8", seed=2), key="another000000000")]
    found = parsed([*runs, failed(experiment("cola", seed=9))])
    cells = found.text("td").split("\n")
    assert cells[0] == "w8a80000"
    assert "w8a80000: quant.weight_bits 8 → 4" in cells
    assert "w4a80000: seed 1 → 2" in cells
    rows = run_tables.runs_table([RunView(each) for each in runs]).rows
    assert [row[0] for row in rows] == ["w8a80000", "w4a80000", "another0"]


def test_every_chart_has_its_numbers_as_a_table() -> None:
    found = Parsed(page(compare(forty()), forty()))
    fields = [each["data-field"] for each in found.all("th") if "data-field" in each]
    figures = len(found.all("figure"))
    assert fields.count("x") + fields.count("low") + fields.count("value") == figures
    assert len([each for each in found.all("div") if each.get("class") == "drawing"]) == figures
    assert all(each.get("scope") == "col" for each in found.all("th"))
    (specifications,) = [text for tag, text in found.texts if tag == "script" and text.startswith("[")]
    numbers = {int(each["data-spec"] or -1) for each in found.all("figure")}
    assert numbers == set(range(len(json.loads(specifications))))


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    found = parsed(forty())
    for tag, attributes in found.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form"), tag
        assert not {"src", "srcset", "xlink:href", "onclick", "style"} & set(attributes), (tag, attributes)
    (policy,) = [each for each in found.all("meta") if each.get("http-equiv")]
    assert (policy["content"] or "").startswith("default-src 'none';")
    assert len(found.all("script")) == 3  # specifications of charts, their library, and the page's own
    own = (pages.ASSETS / "page.js").read_text()
    assert "http" not in found.text("style") + own
    (viewport,) = [each for each in found.all("meta") if each.get("name") == "viewport"]
    assert viewport["content"] == "width=device-width, initial-scale=1"


def test_the_header_counts_runs_and_names_versions() -> None:
    runs = [
        *[replace(record(experiment(seed=seed)), versions={"torch": "2.13.0"}) for seed in (1, 2)],
        replace(record(experiment(seed=3), source="sample"), versions={"torch": "2.12.1", "qexp": "0.1"}),
        failed(experiment(seed=4)),
        record(experiment(seed=5, budget={"name": "smoke", "train_steps": 5})),
    ]
    now = datetime(2026, 4, 5, 6, 7, tzinfo=UTC)
    text = parsed(runs, unreadable=2, now=now).text("dd")
    assert "2026-04-05 06:07 UTC" in text
    assert "5: 4 ok, 1 failed, 1 of budget smoke, 1 on sample rows, 2 unreadable, left out" in text
    assert "qexp 0.1.0 and 0.1" in text
    assert "torch 2.13.0 and 2.12.1" in text


def test_what_records_say_stays_text() -> None:
    trees = [
        experiment("cola", model=HOSTILE, quant=quant, method={"kind": "qat"}) for quant in ("w8a8", "w4a8")
    ]
    for tree in trees:
        tree["task"]["name"] = HOSTILE
    runs = [
        replace(
            full({**tree, "seed": seed}, random.Random(seed)),
            key=f"{tree['quant']}{seed}",
            versions={HOSTILE: HOSTILE},
            ranges={"qat": {f"{name}.{HOSTILE}": each for name, each in ranges(random.Random(1)).items()}},
            curves={HOSTILE: {"step": [1, 2], "loss": [1.0, 0.5]}},
            bytes={"fp32": 9_000_000, "int8": 3_000_000},
        )
        for tree in trees
        for seed in (1, 2)
    ]
    found = parsed(
        [*runs, failed({**trees[0], "seed": 3}, f"no {HOSTILE}")], [Table(HOSTILE, (HOSTILE,), ((HOSTILE,),))]
    )
    assert len(found.all("script")) == 3
    for tag in ("h3", "td", "button", "option", "figcaption", "li", "dd"):
        assert HOSTILE in found.text(tag), tag
    assert not [tag for tag, attributes in found.tags if any(name.startswith("on") for name in attributes)]


@given(st.text(), st.text())
def test_any_text_stays_what_it_is_in_a_table(cell: str, note: str) -> None:
    text = table_html(Table("t", ("a",), ((cell,),), notes=(note,)))
    found = Parsed(text)
    known = {"h3", "p", "div", "table", "thead", "tbody", "tr", "th", "td", "button", "ul", "li"}
    assert {tag for tag, _ in found.tags} == known


number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-3, 3).map(float)
some = st.lists(number, max_size=4)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_numbers_make_a_page(data: st.DataObject) -> None:
    fields = ("low", "high", "seen_low", "seen_high", "sqnr")
    each_range = st.dictionaries(st.sampled_from(fields), number | st.none())
    tree = experiment("cola", method={"kind": "qat"})
    runs = [
        record(
            {**tree, "seed": seed},
            key=f"k{seed}",
            scores={stage: {"matthews": data.draw(number | st.none())} for stage in ("fp32", "ptq", "qat")},
            bytes={graph: data.draw(number) for graph in ("fp32", "int8")},
            latency={
                graph: {"1": {"p50_ms": data.draw(number), "p90_ms": data.draw(number)}}
                for graph in ("fp32", "int8")
            },
            curves={"qat": {"step": data.draw(some), "loss": data.draw(some)}},
            ranges={"qat": data.draw(st.dictionaries(st.text(max_size=9), each_range, max_size=3))},
        )
        for seed in (1, 2)
    ]
    runs = [Record.from_json(run.to_json()) for run in runs]
    cells = parsed(runs).text("td").split("\n")
    assert not {"nan", "inf", "-inf"} & set(cells)


def test_failed_rows_and_their_errors_are_in_the_table() -> None:
    found = parsed(forty())
    assert "2 of 3: seed 3 failed [1]" in found.text("td")
    assert f"[1] TrainingError: no {HOSTILE}" in found.text("li")
    assert f"TrainingError: no {HOSTILE}" in found.text("td")
    assert "second line" not in found.text("li", "td")


def test_a_failure_that_was_made_up_for_is_not_listed() -> None:
    early, late = "2026-03-01T09:00:00+00:00", "2026-03-02T09:00:00+00:00"
    found = parsed([failed(experiment(), finished=early), record(experiment(), finished=late)])
    assert "No run failed." in found.text("p")


def test_an_empty_section_says_why_and_how_to_fill_it() -> None:
    run = record(experiment("cola"))
    found = parsed([run])
    empty = [each for each in found.all("p") if each.get("class") == "empty"]
    assert len(empty) == 12
    assert len(found.all("pre")) == 11  # that no run failed, no command has to change
    assert f"qexp again {run.key[:8]} -m quant=w8a8 seed=1,2,3" in found.text("pre")
    assert "No Record has a loss curve" in found.text("p")
    assert len(Parsed(page([], [])).all("pre")) == 15


def test_one_chart_of_each_run_gallery_is_shown_at_first() -> None:
    found = parsed(forty())
    figures = found.all("figure")
    assert sum("hidden" not in each for each in figures) == 3 * 2 + 1 + 7
    assert len(found.all("option")) == sum("hidden" in each for each in figures) + 7
    assert "figure[hidden] { display: block; }" in found.text("style")  # for readers without scripts


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("86.38 (85.70..86.69) n=3", 86.38), ("-0.14 (-0.27..+0.91)", -0.14), ("+0.20", 0.2),
        ("85.83 -> 22.30 (3.85x)", 22.3), ("-> 5.00", 5.0), ("12.0 -> 5.00 (2.40x) simulated", 5.0),
        ("2 of 3: seed 3 failed [1]", 2), ("2e-05", 2e-5), ("3", 3), ("85.1 †", 85.1),
        ("-", None), ("missing", None), ("failed [1]", None), ("w8a8", None), ("8bit", None), ("", None),
        ("2026-03-01", 2026), ("00015abcdef", None),
    ],
)  # fmt: skip
def test_cells_sort_by_the_number_that_a_reader_sees(cell: str, number: float | None) -> None:
    assert sort_number(cell) == number


@pytest.mark.parametrize(
    ("cell", "kind"), [("undefined", None), ("missing", "bad"), ("failed [1]", "bad"), ("a " * 40, "long")]
)
def test_only_what_went_wrong_is_red(cell: str, kind: str | None) -> None:
    (found,) = Parsed(table_html(Table("t", ("a",), ((cell,),)))).all("td")
    assert found.get("class") == kind


def test_interrupted_runs_have_a_section_of_their_own() -> None:
    found = parsed([interrupted(experiment()), failed(experiment(seed=2))])
    assert found.text("h2").count("Interrupted runs") == 1
    assert "2: 0 ok, 1 failed, 1 interrupted" in found.text("dd")
    assert "Interrupted runs" not in parsed([failed(experiment())]).text("h2")


def test_a_long_table_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_ROWS", 3)
    monkeypatch.setattr(run_tables, "MOST_FAILURES", 2)
    found = Parsed(table_html(Table("t", ("a",), tuple((str(n),) for n in range(5)))))
    assert len(found.all("td")) == 3
    assert "the last 2 rows of 5" in found.text("p")
    runs = [failed(experiment(seed=seed)) for seed in range(4)]
    assert "Left out: 2 older failures." in parsed(runs).text("li")


def test_many_notes_are_folded() -> None:
    found = Parsed(table_html(Table("t", ("a",), (("1",),), notes=tuple(map(str, range(20))))))
    assert found.text("summary") == "20 notes"
    assert len(found.all("li")) == 20


def test_two_hundred_runs_make_a_page_below_three_megabytes() -> None:
    """As many runs as a page shows one by one, each with 24 layers of activations: the largest page."""
    chance, runs = random.Random(3), []
    for number in range(200):
        task, quant = ("cola", "mrpc", "mnli", "cola")[number % 4], ("w8a8", "w4a8")[number // 4 % 2]
        tree = experiment(
            task, model=f"m{number % 40}", quant=quant, seed=number, deploy=ENGINES, method={"kind": "qat"}
        )
        key = f"{number:03}{task}{quant}"
        layers = {"ranges": {"qat": ranges(chance, 24)}, "outliers": outliers(chance, 24)}
        runs.append(replace(full(tree, chance), key=key, **layers))  # type: ignore[arg-type]
    comparisons = compare(runs)
    text = page(comparisons, runs, verdicts=verdicts_of(comparisons))
    found = Parsed(text)
    assert len(found.all("option")) == 7 * MOST_RUNS
    assert len(text.encode()) < 3e6
    assert {run.key[:8] for run in runs} <= set(found.text("td").split("\n"))


def test_a_missing_library_is_named_in_a_line_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures, "find_spec", lambda name: None if name == "vl_convert" else object())
    assert main(["--outputs", str(tmp_path), "--html"]) == INVALID
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install vl-convert-python" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_thousands_of_records_make_a_page_in_seconds_that_stays_small() -> None:
    chance = random.Random(3)
    runs = [
        replace(
            full(experiment("cola", model=f"m{number % 60}", quant=quant, seed=number), chance),
            key=f"{quant}{number}",
        )
        for number in range(1000)
        for quant in ("fp32", "w8a8", "w4a8")
    ]
    comparisons = compare(runs)
    start = time.process_time()
    text = page(comparisons, runs)
    assert time.process_time() - start < 10  # 1 s measured
    assert len(text) < 4e6
    assert Parsed(text).text("p").count("Left out") >= 3


def test_each_cell_of_a_table_is_in_the_page() -> None:
    runs = forty()
    cells = set(parsed(runs).text("td").split("\n"))
    for comparison in compare(runs):
        assert {cell for row in table_of(comparison).rows for cell in row} <= cells
