"""GLUE averages: published rows are reproduced, and missing scores are reported."""

from __future__ import annotations

import csv
import io

import pytest

from qexp.reporting.formats import markdown_text
from qexp.reporting.formats.csv import csv_text
from qexp.reporting.glue import CONVENTIONS, Average, averages
from qexp.reporting.report import Report
from qexp.reporting.table import markdown
from qexp.reporting.tables.glue import averages_table
from tests.support.glue_records import FULL, aimet, metrics_of, row, run, same, tree
from tests.support.record_factory import failed, record


def only(found: list[Average], convention: str) -> Average:
    (average,) = (each for each in found if each.convention.name == convention)
    return average


def last(average: Average) -> float | None:
    *_, cell = average.cells.values()
    return cell.median


@pytest.mark.parametrize(
    ("numbers", "published"),
    [
        ((58.76, 93.12, 89.93, 88.84, 90.94, 85.19, 91.63, 66.43), 83.11),  # BERT-base FP32
        ((56.93, 91.28, 90.34, 89.13, 90.78, 81.68, 91.14, 68.23), 82.44),  # BERT-base W8A8
        ((52.51, 91.63, 90.81, 88.19, 90.80, 83.46, 91.12, 68.95), 82.18),  # MobileBERT W8A8
        ((50.34, 91.28, 87.61, 87.30, 90.48, 82.90, 89.42, 68.23), 80.95),  # MobileBERT W4A8
        ((55.58, 92.20, 88.21, 88.68, 90.62, 84.59, 90.72, 70.40), 82.63),  # MiniLM-L12 W8A8
    ],
)
def test_rows_of_aimet_average_as_published(numbers: tuple[float, ...], published: float) -> None:
    found = only(averages(row(aimet(*numbers))), "aimet")
    assert last(found) == pytest.approx(published, abs=0.0051)
    assert found.gaps == ()


@pytest.mark.parametrize(
    ("numbers", "published"),
    [
        ((57.27, 93.12, 88.36, 89.09, 89.72, 84.91, 91.58, 70.40), 83.06),
        ((54.74, 92.55, 88.53, 81.02, 83.81, 50.31, 52.32, 64.98), 71.03),
        ((58.63, 92.55, 88.74, 89.05, 89.72, 84.58, 91.43, 71.12), 83.23),
    ],
)
def test_rows_of_bondarenko_average_as_published(numbers: tuple[float, ...], published: float) -> None:
    cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte = numbers
    text = (
        f"cola matthews {cola};sst2 accuracy {sst2};{same('mrpc', mrpc)};{same('stsb', stsb)};"
        f"{same('qqp', qqp)};mnli accuracy@matched {mnli};qnli accuracy {qnli};rte accuracy {rte}"
    )
    assert last(only(averages(row(text, "ptq")), "bondarenko")) == pytest.approx(published, abs=0.0051)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "cola matthews 59.6;sst2 accuracy 93.35;mrpc accuracy 87.75 f1 91.35;stsb pearson 89.70 spearman "
            "89.28;qqp f1 87.82 accuracy 90.91;mnli accuracy@matched 84.94 accuracy@mismatched 84.76;"
            "qnli accuracy 91.84;rte accuracy 72.56",
            {"bondarenko": 83.84, "aimet": 84.26},
        ),
        (
            "cola matthews 59.41;sst2 accuracy 92.78;mrpc accuracy 87.75 f1 91.2;stsb pearson 89.36 spearman "
            "89.22;qqp f1 87.46 accuracy 90.72;mnli accuracy@matched 84.69 accuracy@mismatched 84.59;"
            "qnli accuracy 91.32;rte accuracy 71.84",
            {"bondarenko": 83.49, "aimet": 83.91},
        ),
    ],
)
def test_one_row_has_another_average_by_each_convention(text: str, expected: dict[str, float]) -> None:
    """MQBench's tables, the one source with both numbers of every pair; averages computed by hand."""
    found = {each.convention.name: last(each) for each in averages(row(text, "ptq"))}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.0051)


def test_q8bert_needs_no_mnli() -> None:
    text = (
        "cola matthews 58.48;sst2 accuracy 92.24;mrpc f1 89.56;stsb pearson 89.04;qqp f1 87.96;"
        "qnli accuracy 90.62;rte accuracy 68.78"
    )
    found = averages(row(text))
    assert last(only(found, "q8bert")) == pytest.approx(576.68 / 7)
    assert only(found, "aimet").gaps == ("mnli missing",)
    assert last(only(found, "aimet")) is None


def test_conventions_name_scores_that_the_tasks_have() -> None:
    for convention in CONVENTIONS:
        for task, metrics in convention.metrics.items():
            assert set(metrics) <= set(metrics_of(task)), (convention.name, task)


def test_what_is_missing_failed_or_undefined_is_told_by_seed() -> None:
    runs = [*row(FULL, seed=1), *row(FULL, seed=2)]
    runs = [each for each in runs if each.experiment["task"]["name"] != "rte"]
    runs += [run("rte", {"accuracy": 60.0}, seed=1), failed(tree("rte", seed=2))]
    found = only(averages(runs), "aimet")
    assert found.gaps == ("rte failed (seed 2)",)
    assert found.cells["qat"].missing == (2,)
    assert list(found.cells["qat"].values) == [1]
    assert found.cells["qat"].status == "partial"
    runs[3] = run("stsb", {"pearson": None}, seed=1)
    found = only(averages(runs), "aimet")
    assert found.gaps == ("rte failed (seed 2)", "stsb undefined (seed 1)")
    assert found.cells["qat"].values == {1: None}


def test_seeds_are_averaged_over_tasks_first() -> None:
    runs = [*row(FULL, seed=1), *row(aimet(*range(60, 68)), seed=2), *row(aimet(*range(90, 98)), seed=3)]
    cell = only(averages(runs), "aimet").cells["qat"]
    assert cell.values == pytest.approx({1: 53.5, 2: 63.5, 3: 93.5})
    assert cell.median == pytest.approx(63.5)


def test_what_is_small_or_made_up_has_no_average() -> None:
    assert averages(row(FULL, budget={"name": "smoke", "train_steps": 8})) == []
    assert averages(row(FULL, budget={"name": "full", "train_steps": 8})) == []
    sample = [record(dict(each.experiment), scores=each.scores, source="sample") for each in row(FULL)]
    assert averages(sample) == []
    assert averages(row("rte accuracy 60")) == []


def test_other_bits_methods_and_settings_are_never_mixed() -> None:
    tasks = FULL.split(";")
    for words in (
        {"quant": "w4a8"}, {"model": "other"}, {"calibrator": {"kind": "mse"}},
        {"scheme": {"weight": {"granularity": "per_tensor"}}}, {"data": {"train_rows": 100}},
        {"machine": {"precision": "bf16"}}, {"method": {"kind": "qat", "ranges": "frozen"}},
    ):  # fmt: skip
        found = averages([*row(";".join(tasks[:4])), *row(";".join(tasks[4:]), **words)])
        assert len(found) == 2 * len(CONVENTIONS)
        assert all(last(each) is None and each.gaps for each in found)


def test_schedule_and_devices_may_follow_the_task() -> None:
    tasks = FULL.split(";")
    long = {"finetune": {"kind": "full", "learning_rate": 1e-5, "epochs": 10}, "machine": {"devices": 2}}
    assert last(only(averages([*row(";".join(tasks[:-1])), *row(tasks[-1], **long)]), "aimet")) == 53.5


def test_a_setting_that_is_varied_within_a_task_makes_rows_of_its_own() -> None:
    rates = [{"finetune": {"kind": "full", "learning_rate": rate, "epochs": 5}} for rate in (1e-5, 5e-5)]
    tasks = FULL.split(";")
    runs = row(";".join(tasks[:-1]))
    runs += row("rte accuracy 60", **rates[0]) + row("rte accuracy 68", **rates[1])
    found = [each for each in averages(runs) if each.convention.name == "aimet"]
    assert {each.settings["finetune.learning_rate"]: last(each) for each in found} == {
        "1e-05": pytest.approx((sum(range(50, 57)) + 60) / 8),
        "5e-05": pytest.approx((sum(range(50, 57)) + 68) / 8),
    }
    assert "finetune.learning_rate" in averages_table(averages(runs)).columns


def test_the_table_and_the_lines() -> None:
    runs = [*row(FULL), *row(";".join(FULL.split(";")[:-1]), quant="w4a8")]
    found = averages(runs)
    table = averages_table(found)
    assert table.columns == ("convention", "model", "quant", "FP32", "PTQ", "QAT", "lacks")
    cells = {(line[0], line[2]): line[3:] for line in table.rows}
    assert cells["aimet", "w8a8"] == ("0.00", "0.00", "53.50", "-")
    assert cells["aimet", "w4a8"] == ("missing", "missing", "missing", "rte missing")
    assert any(note.startswith("q8bert: ") and "no MNLI" in note for note in table.notes)
    assert markdown_text(Report(averages=found)) == markdown(table)
    lines = list(csv.DictReader(io.StringIO(csv_text(Report(averages=found)))))
    assert len(lines) == 2 * len(CONVENTIONS) * 3
    (line,) = (
        each for each in lines if (each["metric"], each["quant"], each["stage"]) == ("aimet", "w8a8", "qat")
    )
    assert (line["task"], line["quantity"], line["unit"], line["status"]) == (
        "glue",
        "average",
        "percent",
        "ok",
    )
    assert (float(line["median"]), line["n"], line["seeds"]) == (53.5, "1", "1")
    (line,) = (
        each for each in lines if (each["metric"], each["quant"], each["stage"]) == ("q8bert", "w4a8", "qat")
    )
    assert (line["status"], line["median"], line["simulated"]) == ("missing", "", "false")
    assert line["error"] == "rte missing"
