"""LaTeX and JSON of a report: escaping, structure, and every digit."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexp.records.record import Record
from qexp.reporting.formats import FORMATS, latex_text
from qexp.reporting.formats.json import SCHEMA, json_text
from qexp.reporting.formats.latex import ESCAPES, escaped, latex
from qexp.reporting.glue import BY_NAME
from qexp.reporting.report import Report, report_of
from qexp.reporting.run_view import Quantity
from qexp.reporting.table import Table
from tests.support.record_factory import deployed, experiment, failed, record

SPECIAL = set('\\{}$&#_%~^<>|"†…±→')


def report(*more: Record) -> Report:
    runs = [
        record(experiment(task, "google-bert/bert-base-uncased", quant, seed))
        for task in ("mrpc", "cola")
        for quant in ("fp32", "w8a8", "w4a8")
        for seed in (1, 2)
    ]
    return report_of([*runs, *more], BY_NAME["aimet"])


# LaTeX


@given(st.text(st.sampled_from(sorted(SPECIAL) + list("ab1 -[]*"))))
def test_nothing_that_latex_reads_otherwise_is_left(text: str) -> None:
    commands = "|".join(sorted(map(re.escape, ESCAPES.values()), key=len, reverse=True))
    assert not set(re.sub(commands, "", escaped(text))) & SPECIAL


def test_options_keep_their_dashes_and_lines_their_words() -> None:
    assert escaped("--task\n 50 %") == r"-{}-task 50 \%"


def test_a_table_has_rules_and_published_rows_below_one() -> None:
    rows = (("a_b", "1.00 (0.5..2)"), ("published: x & y", "2.00"))
    text = latex(Table("t", ("model", "cola"), rows, ("**made-up**",), ("[1] 50 %",), foreign=1))
    assert text.splitlines() == [
        r"\begin{table}[htbp]",
        r"\centering",
        r"\caption{t. \textbf{made-up}}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"model & cola \\",
        r"\midrule",
        r"a\_b & 1.00 (0.5..2) \\",
        r"\midrule",
        r"published: x \& y & 2.00 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\footnotesize [1] 50 \%",
        r"\end{table}",
    ]


def test_every_row_of_a_report_has_as_many_cells_as_columns() -> None:
    text = latex_text(report(failed(experiment(quant="w8a16", seed=3))))
    tabulars = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(tabulars) == text.count(r"\begin{table}")
    for columns, body in tabulars:
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(columns)}
    for opened in ("table", "tabular"):
        assert text.count(rf"\begin{{{opened}}}") == text.count(rf"\end{{{opened}}}")


# JSON


def cells(tree: dict[str, Any], task: str, quant: str) -> dict[Quantity, dict[str, Any]]:
    (table,) = (each for each in tree["tables"] if each["task"] == task)
    (row,) = (each for each in table["rows"] if each["quant"] == quant)
    names = ("quantity", "stage", "metric", "batch")
    return {Quantity(*(cell[name] for name in names)): cell for cell in row["cells"]}


def test_json_gives_every_number_back() -> None:
    ours = report(deployed(experiment("mrpc", "x", seed=1)))
    tree = json.loads(json_text(ours))
    assert tree["schema"] == SCHEMA
    for comparison in ours.comparisons:
        (table,) = (each for each in tree["tables"] if each["task"] == comparison.task)
        for row, printed in zip(comparison.rows, table["rows"], strict=True):
            assert (row.model, row.quant, dict(row.settings)) == (
                printed["model"], printed["quant"], printed["settings"],
            )  # fmt: skip
            for cell, of_cell in zip(row.cells.values(), printed["cells"], strict=True):
                assert {int(seed): value for seed, value in of_cell["values"].items()} == cell.values
                assert (of_cell["median"], of_cell["status"]) == (cell.median, cell.status)
    assert [each["source"] for each in tree["published"]] == [row.source for row in ours.published]
    assert [each["loss"] for each in tree["published_losses"]] == [
        each.loss for each in ours.published_losses
    ]  # fmt: skip
    assert tree["intervals"] is None


def test_json_says_what_failed_and_what_is_undefined() -> None:
    undefined = record(experiment(seed=1), scores={"fp32": {"f1": None}, "ptq": {"f1": 1.0}})
    tree = json.loads(json_text(report_of([undefined, failed(experiment(seed=2))], BY_NAME["aimet"])))
    known = cells(tree, "mrpc", "w8a8")
    assert known[Quantity("score", "fp32", "f1")]["values"]["1"] is None
    assert known[Quantity("score", "qat", "f1")]["failed"] == {"2": "TrainingError: the loss is nan"}
    assert known[Quantity("score", "qat", "f1")]["missing"] == [1]


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_of_every_part(form: str) -> None:
    _, text = FORMATS[form]
    for part in [report(), Report(), *report().parts().values()]:
        assert isinstance(text(part), str)
