"""Tables of engines: scores, gates, speedups and notes."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from qexp.reporting.engines import engine_rows, engine_tables
from qexp.reporting.formats import FORMATS, tables_of
from qexp.reporting.glue import BY_NAME
from qexp.reporting.report import report_of
from qexp.reporting.run_view import RunView
from qexp.reporting.table import Table
from tests.support.record_factory import deployed, experiment, parity, timing

HOST = {"processor": "Fast [avx]", "cores": 2, "threads": 2, "runtimes": ["onnxruntime 1"], "gpu": None}


def engine(p50: float, *, passed: bool = True, share: float = 0.0, **parts: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "info": {"bytes": 2**20, "command": None},
        "gate": parity(passed),
        "scores": {"f1": 80.0, "accuracy": 70.0},
        "latency": {"1x128": timing(p50)},
        "audit": {"integer_share": share, "conversions": 3, "products": 2, "in_float": [], "nodes": {}},
    }
    return found | parts


def run(quant: str = "w8a8", /, **engines: Any) -> RunView:
    named = {name.replace("_", "/"): found for name, found in engines.items()}
    return RunView(deployed(experiment(quant=quant), engines=named, host=HOST))


def table(*runs: RunView) -> Table:
    (found,) = engine_tables(engine_rows(runs))
    return found


def column(found: Table, name: str) -> list[str]:
    return [row[found.columns.index(name)] for row in found.rows]


def test_how_much_faster_is_against_the_best_float_engine() -> None:
    found = table(run(slow_fp32=engine(20.0), fast_fp32=engine(10.0), fast_int8=engine(4.0, share=87.54)))
    assert column(found, "1x128") == [
        "10.00 (1.00x, p90/p50 1.10)",
        "20.00 (0.50x, p90/p50 1.10)",
        "4.00 (2.50x, p90/p50 1.10)",
    ]
    assert column(found, "integer work (%)") == ["0.0", "0.0", "87.5"]
    assert column(found, "quant") == ["fp32", "fp32", "w8a8"]


def test_a_ratio_is_within_one_run_and_the_same_graph_at_two_speeds_is_noisy() -> None:
    graph = [{"stage": "7-onnx", "key": "same", "state": "built", "seconds": 1.0}]
    runs = [
        RunView(deployed(experiment(quant=quant), host=HOST, stages=graph, engines={
            "a/fp32": engine(fp32), "a/int8": engine(5.0),
        }))
        for quant, fp32 in (("w8a8", 10.0), ("w4a8", 20.0))
    ]  # fmt: skip
    found = table(*runs)
    assert set(column(found, "1x128")) == {"10.00 (noisy)", "20.00 (noisy)", "5.00 (noisy)"}
    (note,) = (note for note in found.notes if "noisy" in note)
    assert note.endswith(": noisy, the same FP32 graph took 10.0 ms in one run and 20.0 in another")
    for each in runs:
        assert f"{each.record.key[:8]} a/fp32 1x128, a/int8 1x128" in note
    apart = [RunView(replace(each.record, stages=[])) for each in runs]
    assert "5.00 (4.00x, p90/p50 1.10)" in column(table(*apart), "1x128")


def test_each_kind_of_note_is_said_once_with_the_engines_that_it_holds_for() -> None:
    problems = {"problems": {"engine": "install it"}}
    of_run = {
        "a/fp32": engine(10.0, latency={"1x128": timing(10.0, 1.6)}), "b/fp32": problems,
        "a/int8": engine(5.0, latency={"1x128": timing(5.0, 1.73)}), "b/int8": problems,
    }  # fmt: skip
    caveats = {stage: {"f1": "predicts 'yes' for all 5 rows"} for stage in ("fp32", "qat")}
    runs = [
        RunView(deployed(experiment(seed=seed), engines=of_run, host=HOST, caveats=caveats))
        for seed in (1, 2, 3)
    ]
    notes = table(*runs).notes
    assert len(notes) == len({note.partition(": ")[2] for note in notes}) == 3
    for note, whats in zip(
        notes,
        ("b/fp32 engine, b/int8 engine", "a/fp32, a/int8", "a/fp32 1x128 (1.60), a/int8 1x128 (1.73)"),
        strict=True,
    ):
        assert all(f"{each.record.key[:8]} {whats}" in note for each in runs)


def test_how_to_read_engines_is_said_above_the_first_table() -> None:
    engines = {"a/fp32": engine(10.0)}
    runs = [
        RunView(deployed(experiment(model=model), engines=engines, host=HOST)) for model in ("x/a", "x/b")
    ]
    first, second = engine_tables(engine_rows(runs))
    assert first.caption[-1] == second.caption[-1] == "Machine: Fast, 2 threads."
    assert len(first.caption) == 3 and len(second.caption) == 1


def test_an_engine_of_a_model_that_predicts_one_class_is_marked() -> None:
    why = "predicts 'yes' for all 5 rows"
    engines = {"a/fp32": engine(10.0), "a/int8": engine(5.0)}
    run = RunView(deployed(experiment(), engines=engines, host=HOST, caveats={"qat": {"f1": why}}))
    found = table(run)
    assert column(found, "score") == ["80.00", "80.00 ‡"]
    (note,) = (note for note in found.notes if note.startswith("‡"))
    assert "a/int8" in note and why in note
    report = report_of([run], BY_NAME["aimet"])
    lines = list(csv.DictReader(io.StringIO(FORMATS["csv"][1](report))))
    told = {(line["stage"], line["metric"]) for line in lines if line["caveat"] == why}
    assert {("qat", "f1"), ("a/int8", "f1")} <= told and {stage for stage, _ in told} <= {
        "qat",
        "onnx",
        "a/int8",
    }
    (row,) = json.loads(FORMATS["json"][1](report))["tables"][0]["rows"]
    assert row["caveats"] == {"1": {"qat": {"f1": why}}}


def test_a_failed_gate_is_marked_and_says_what_to_do() -> None:
    found = table(run(a_fp32=engine(10.0), a_int8=engine(5.0, passed=False)))
    assert column(found, "gate") == ["passed", "failed †"]
    (note,) = found.notes
    assert "departs from torch" in note
    assert "97.25 %" in note
    assert "--bisect" in note


def test_a_runtime_that_is_not_there_and_a_refused_shape_are_told() -> None:
    small = engine(5.0, latency={}, problems={"1x128": "too large"})
    found = table(run(a_fp32=engine(10.0), b_fp32={"problems": {"engine": "install it"}}, c_int8=small))
    assert column(found, "1x128") == ["10.00 (1.00x, p90/p50 1.10)", "-", "refused †"]
    assert [note.split(": ", 1)[1] for note in found.notes] == ["install it", "too large"]


def test_formats_without_a_kernel_are_called_simulated() -> None:
    found = table(run("w4a4", a_fp32=engine(10.0), a_int8=engine(9.0)))
    assert column(found, "engine") == ["a/fp32", "a/int8 simulated"]
    assert "simulated: " in found.notes[-1]


@pytest.mark.parametrize(
    ("quant", "label"),
    [
        ("w8a8", ""),
        ("w4a8", " as 8-bit integers"),
        ("w4a4", " simulated"),
        ("w8a16", " simulated"),
        ("w4a32", " weights alone"),
    ],
)
def test_what_becomes_of_the_widths_is_the_runtimes_answer(quant: str, label: str) -> None:
    found = table(run(quant, onnxruntime_fp32=engine(10.0), onnxruntime_int8=engine(9.0)))
    assert column(found, "engine") == ["onnxruntime/fp32", f"onnxruntime/int8{label}"]
    assert [note.split(":")[0] for note in found.notes] == ([label.strip()] if label else [])


def test_overrides_count_among_the_widths() -> None:
    tree = experiment()
    tree["quant"]["overrides"] = {"*.pooler.*": {"activation_bits": 16}}
    found = table(RunView(deployed(tree, engines={"openvino/int8": engine(9.0)}, host=HOST)))
    assert column(found, "engine") == ["openvino/int8 simulated"]


def test_machines_do_not_stand_in_one_table() -> None:
    here = run(a_fp32=engine(10.0))
    there = deployed(experiment(seed=2), engines={"a/fp32": engine(1.0)}, host={**HOST, "threads": 64})
    assert len(engine_tables(engine_rows([here, RunView(there)]))) == 2


def test_every_form_of_a_report_has_them() -> None:
    report = report_of([run(a_fp32=engine(10.0), a_int8=engine(4.0, share=50.0))], BY_NAME["aimet"])
    assert any(each.title == "engines: mrpc minilm" for each in tables_of(report))
    assert "engines" in report.parts()
    for name, (_, text) in FORMATS.items():
        assert "a/int8" in text(report), name
    (_, second) = json.loads(FORMATS["json"][1](report))["engines"]
    assert (second["engine"], second["audit"]["integer_share"]) == ("a/int8", 50.0)
    lines = list(csv.DictReader(io.StringIO(FORMATS["csv"][1](report))))
    (share,) = (line for line in lines if line["quantity"] == "integer_share" and line["stage"] == "a/int8")
    assert share["median"] == "50.0"
