"""Memory and load time in every table and file that shows what engines cost."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from qexp.publishing.model_card import _costs
from qexp.reporting.comparison import compare
from qexp.reporting.engines import engine_rows, engine_tables
from qexp.reporting.formats import FORMATS
from qexp.reporting.formats.terminal import print_run
from qexp.reporting.glue import BY_NAME
from qexp.reporting.report import report_of
from qexp.reporting.run_view import RunView
from qexp.reporting.table import Table
from qexp.reporting.tables.comparison import table_of
from qexp.reporting.tables.run import cost_table
from qexp.reporting.tables.runs import runs_table
from qexp.reporting.tables.session_cost import session_cells, session_notes
from tests.support.record_factory import deployed, experiment, parity, timing
from tests.support.verdict_records import MIB, engine, judged

NOISE = {
    **parity(True), "verdict": "within noise",
    "floor": {"agreement": 99.9, "logit_differences": {"max": 0.1}},
}  # fmt: skip
SMOKE = {"memory_bytes": None, "load_seconds": None, "reason": "budget.benchmark_runs=3 is less than 10"}


def session(mebibytes: float, seconds: float) -> dict[str, Any]:
    return {"memory_bytes": int(mebibytes * MIB), "load_seconds": seconds}


ENGINES = {
    "onnxruntime/int8": engine(112.0, session=session(36.25, 0.2), gate=NOISE, info={"bytes": 22 * MIB}),
    "onnxruntime/fp32": engine(258.1, session=session(430.0, 3.925), info={"bytes": 88 * MIB}),
}
UNMEASURED = {name: {**found, "session": SMOKE} for name, found in ENGINES.items()}


def column(table: Table, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.rows]


def test_the_table_of_a_run_has_memory_and_load_time_beside_the_size() -> None:
    costs = cost_table(judged(engines=ENGINES))
    assert costs is not None
    assert costs.columns[1:4] == ("size (MiB)", "memory (MiB)", "load (s)")
    assert column(costs, "memory (MiB)") == ["36.2", "430.0"]
    assert column(costs, "load (s)") == ["0.20", "3.92"]
    assert any("memory" in line.lower() for line in costs.caption)
    assert costs.notes == ()


def test_where_nothing_was_measured_there_is_no_column_and_the_reason_once() -> None:
    costs = cost_table(judged(engines=UNMEASURED))
    assert costs is not None and "memory (MiB)" not in costs.columns
    assert costs.notes == ("Memory or load time not measured: budget.benchmark_runs=3 is less than 10.",)
    older = cost_table(judged())
    assert older is not None and older.columns == costs.columns and older.notes == ()


def test_a_reason_of_one_engine_names_it() -> None:
    engines = {**ENGINES, "tensorrt/int8": {"session": {**SMOKE, "reason": "it is on a GPU"}}}
    assert session_notes(engines) == ["Memory or load time of tensorrt/int8 not measured: it is on a GPU."]
    assert session_cells(engines["tensorrt/int8"]) == ("-", "-")
    assert session_cells({"session": {**session(1, 0.5), "memory_bytes": None}}) == ("-", "0.50")


@pytest.mark.parametrize("width", [80, 100, 140])
def test_they_fit_beside_each_other_into_a_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_run(judged(engines=ENGINES), verdict=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    (head,) = (line.split() for line in lines if line.startswith("engine "))
    names = ["engine", "size", "memory", "load", "p50", "speedup", "p90/p50", "gate"]
    assert [word for word in head if not word.startswith("(")] == names
    assert ("(MiB)" in head) == (width > 80)
    assert any("memory in MiB" in line for line in lines) == (width == 80)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_table_with_reasons_as_well_is_divided_before_it_is_too_wide(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    noisy = {name: {**found, "latency": {"1x128": timing(112.0, 1.7)}} for name, found in ENGINES.items()}
    print_run(judged(engines=noisy), verdict=False)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= width
    for shown in ("36.2", "430.0", "0.20", "3.92", "within noise", "p90/p50 1.70"):
        assert shown in text


def test_engines_of_a_report_have_them_in_every_format() -> None:
    rows = engine_rows([RunView(judged(engines=ENGINES))])
    (table,) = engine_tables(rows)
    assert column(table, "memory (MiB)") == ["430.0", "36.2"]
    assert column(table, "load (s)") == ["3.92", "0.20"]
    (bare,) = engine_tables(engine_rows([RunView(judged(engines=UNMEASURED))]))
    assert "load (s)" not in bare.columns
    report = report_of([RunView(judged(engines=ENGINES))], BY_NAME["aimet"])
    for name, (_, text) in FORMATS.items():
        if name != "json":
            assert "36.2" in text(report) or str(int(36.25 * MIB)) in text(report), name
    found = {each["engine"]: each["session"] for each in json.loads(FORMATS["json"][1](report))["engines"]}
    assert found["onnxruntime/int8"] == ENGINES["onnxruntime/int8"]["session"]
    lines = [*csv.DictReader(io.StringIO(FORMATS["csv"][1](report)))]
    for stage, status in (("onnxruntime/int8", ""), ("int8", "ok")):  # of the engine, and of the run's row
        memory, load = (
            next(each for each in lines if each["quantity"] == name and each["stage"] == stage)
            for name in ("memory", "load_time")
        )
        assert (float(memory["median"]), memory["unit"], memory["status"]) == (36.25 * MIB, "bytes", status)
        assert (float(load["median"]), load["unit"]) == (0.2, "s")


def test_a_comparison_has_the_pair_of_both_graphs() -> None:
    runs = [judged(engines=ENGINES), judged(quant="w4a8", engines=UNMEASURED)]
    (comparison,) = compare(map(RunView, runs))
    table = table_of(comparison)
    assert column(table, "memory (MiB)") == ["430.0 -> 36.25 (11.86x)", "-"]
    assert column(table, "load (s)") == ["3.92 -> 0.20 (19.62x)", "-"]


def test_the_list_of_runs_has_those_of_the_runs_own_graph() -> None:
    table = runs_table([RunView(judged(engines=ENGINES)), RunView(deployed(experiment("cola")))])
    assert sorted(column(table, "memory (MiB)")) == ["-", "36.2"]
    assert sorted(column(table, "load (s)")) == ["-", "0.20"]


def test_a_published_card_has_what_engines_cost_where_they_were_timed() -> None:
    timed = judged(engines=ENGINES, latency={"fp32": {"1": timing(258.1)}, "int8": {"1": timing(112.0)}})
    costs = _costs(timed)
    assert costs is not None and column(costs, "memory (MiB)") == ["36.2", "430.0"]
    assert _costs(judged(engines={})) is None
