"""Marks of scores that say nothing of their models, in every table and file of a report."""

from __future__ import annotations

from pathlib import Path

import pytest

from qexp.cli.compare import main
from qexp.records.record import read_all, records_folder
from qexp.reporting.comparison import compare
from qexp.reporting.formats import tables_of
from qexp.reporting.glue import BY_NAME
from qexp.reporting.intervals import intervals
from qexp.reporting.report import report_of
from qexp.reporting.tables.intervals import Intervals, interval_tables
from tests.support.paired_runs import LABELS, leave
from tests.support.record_factory import experiment, record

WHY = "predicts 'yes' for all 5 rows"
CONSTANT = {"ptq": {"f1": WHY, "accuracy": WHY}}


def test_every_table_of_a_report_marks_it() -> None:
    trees = [experiment(task, seed=1) for task in ("mrpc", "cola")]
    found = {"cola": {"ptq": {"matthews": "not above 0, the level of chance"}}, "mrpc": CONSTANT}
    report = report_of(
        [record(tree, caveats=found[tree["task"]["name"]]) for tree in trees], BY_NAME["aimet"]
    )
    tables = {table.title: table for table in tables_of(report)}
    for title in ("mrpc", "cola", "overview: GLUE", "relative loss: mrpc", "relative loss: cola"):
        cells = [cell for row in tables[title].rows for cell in row]
        assert any(cell.endswith("‡") for cell in cells), title
        assert any(note.startswith("‡") for note in tables[title].notes), title


def test_a_comparison_of_two_runs_marks_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    constant = [1] * len(LABELS)
    leave(tmp_path, "first1", {"ptq": list(LABELS)})
    leave(tmp_path, "second", {"ptq": constant, "onnx": constant}, caveats=CONSTANT)
    for second in ("second:ptq", "second:onnx"):
        assert main(["first1:ptq", second, "--outputs", str(tmp_path), "--resamples", "100"]) == 0
        shown = capsys.readouterr().out
        assert f"‡ B: {WHY}" in shown and "‡ A" not in shown


def test_intervals_mark_it(tmp_path: Path) -> None:
    stages = {"fp32": list(LABELS), "ptq": [1] * len(LABELS), "qat": list(LABELS)}
    leave(tmp_path, "first1", stages, caveats=CONSTANT)
    comparisons = compare(read_all(records_folder(tmp_path))[0])
    found = Intervals(*intervals(comparisons, tmp_path, resamples=100), 100)
    (table,) = interval_tables(found)
    marked = {row[table.columns.index("stage")] for row in table.rows if any("‡" in cell for cell in row)}
    assert marked == {"PTQ"}
