"""Overviews of all tasks: rows that runs share, metrics of tasks, and reports of missing scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from qexp.records.record import Record
from qexp.reporting.glue import BY_NAME
from qexp.reporting.overview import Overview, overviews
from qexp.reporting.published import published
from qexp.reporting.report import report_of
from qexp.reporting.table import Table
from qexp.reporting.tables.overview import overview_table
from tests.support.glue_records import FULL, row, tree
from tests.support.record_factory import experiment, failed, record

AIMET = BY_NAME["aimet"]
SCORES = {"fp32": {"f1": 90.0, "accuracy": 88.0}, "ptq": {"f1": 80.0, "accuracy": 78.0}}


def only(records: Iterable[Record]) -> Overview:
    (overview,) = overviews(records, AIMET)
    return overview


def rows_of(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.columns, each, strict=True)) for each in table.rows]


def told(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Quant, method and score of MRPC."""
    return [(each["quant"], each["method"], each["mrpc"]) for each in rows_of(overview_table(only(records)))]


def test_stages_are_rows_and_what_is_shared_is_one() -> None:
    """A QAT run has FP32 and PTQ scores too: they are those of the runs that stop there."""
    runs = [
        record(experiment(quant="fp32"), scores={"fp32": SCORES["fp32"]}),
        record(experiment(method={"kind": "ptq"}), scores=SCORES),
        record(experiment(), scores={**SCORES, "qat": {"f1": 89.0, "accuracy": 86.0}}),
        record(experiment(quant="w4a8"), scores={**SCORES, "qat": {"f1": 87.0, "accuracy": 85.0}}),
    ]
    assert told(runs) == [
        ("fp32", "-", "90.00"),
        ("w8a8", "PTQ", "80.00"), ("w8a8", "QAT", "89.00"),
        ("w4a8", "PTQ", "80.00"), ("w4a8", "QAT", "87.00"),
    ]  # fmt: skip


def test_the_control_is_a_row_and_rows_tell_whether_there_was_a_teacher() -> None:
    taught: dict[str, Any] = {"distillation": {"logits": 1.0, "hidden": 0.5}}
    runs = [
        record(experiment(quant="fp32", method={"kind": "control", **taught}, calibrator={"kind": "mse"})),
        record(experiment(quant="fp32", method={"kind": "control"})),
        record(experiment(method={"kind": "qat", **taught})),
        record(experiment(method={"kind": "qat"})),
    ]
    runs = [replace(run, scores={**run.scores, **SCORES}) for run in runs]
    table = overview_table(only(runs))
    found = [(each["quant"], each["method"], each["method.distillation"]) for each in rows_of(table)]
    told = "labels 1.0, logits 1.0, hidden 0.5, temperature 2.0"
    assert sorted(found) == [
        ("fp32", "-", "-"), ("fp32", "control", "-"), ("fp32", "control + KD", told),
        ("w8a8", "PTQ", "-"), ("w8a8", "QAT", "-"), ("w8a8", "QAT + KD", told),
    ]  # fmt: skip
    assert "KD: the FP32 model was the teacher" in table.caption[-1]
    assert "trained on without quantizers" in table.caption[-1]


def test_runs_that_should_share_a_score_and_do_not_are_told() -> None:
    later = {"scores": {**SCORES, "fp32": {"f1": 91.0, "accuracy": 88.0}}, "finished": "2026-03-02T00:00:00"}
    same = record(experiment(method={"kind": "ptq"}), scores=SCORES)
    runs = [same, record(experiment(quant="w4a8", method={"kind": "ptq"}), **later)]
    table = overview_table(only(runs))
    assert rows_of(table)[0]["mrpc"] == "91.00"
    assert "minilm fp32 FP32: runs have different scores of mrpc (seed 1); the newest is shown" in table.notes
    agreeing = [same, record(experiment(quant="w4a8", method={"kind": "ptq"}), scores=SCORES)]
    assert not any("different scores" in note for note in overview_table(only(agreeing)).notes)


def test_a_setting_that_a_stage_does_not_have_tells_nothing_apart() -> None:
    runs = [record(experiment(quant="fp32")), record(experiment())]
    assert overview_table(only(runs)).columns[:4] == ("model", "quant", "method", "mrpc")
    runs.append(record(experiment(calibrator={"kind": "mse"})))
    table = overview_table(only(runs))
    assert "calibrator" in table.columns
    assert [(each["quant"], each["calibrator"]) for each in rows_of(table)] == [
        ("fp32", "-"), ("w8a8", "max"), ("w8a8", "max"), ("w8a8", "mse"), ("w8a8", "mse"),
    ]  # fmt: skip


def test_other_fine_tuning_is_another_fp32() -> None:
    long = {"kind": "full", "learning_rate": 2e-5, "epochs": 9}
    runs = [record(experiment(quant="fp32")), record(experiment(quant="fp32", finetune=long))]
    assert len(only(runs).rows) == 2


def test_columns_are_the_conventions_metrics_in_aimets_order() -> None:
    overview = only(row(FULL))
    assert [column.task for column in overview.columns] == [
        "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte",
    ]  # fmt: skip
    qat = rows_of(overview_table(overview))[-1]
    assert (qat["cola"], qat["mrpc"], qat["rte"], qat["GLUE (aimet)"]) == ("50.00", "52.00", "57.00", "53.50")
    (q8bert,) = (each for each in overviews(row(FULL), BY_NAME["q8bert"]) if each.family == "GLUE")
    assert "mnli" not in [column.task for column in q8bert.columns]


def test_no_average_of_missing_tasks() -> None:
    lacking = [each for each in row(FULL) if each.experiment["task"]["name"] != "rte"]
    table = overview_table(only(lacking))
    assert {each["GLUE (aimet)"] for each in rows_of(table)} == {"missing"}
    assert "no average: no Records of rte" in table.notes
    one = overview_table(only([record(experiment())]))
    assert "GLUE (aimet)" not in one.columns


def test_a_task_that_a_row_lacks_is_missing_and_a_failure_is_marked() -> None:
    runs = [
        *row("cola matthews 50;rte accuracy 60"),
        *row("cola matthews 40", quant="w4a8"),
        failed(tree("rte", quant="w4a8"), scores={}),
        *row("cola matthews 30", quant="w8a16"),
    ]
    table = overview_table(only(runs))
    cells = {(each["quant"], each["method"]): each["rte"] for each in rows_of(table)}
    assert cells["w4a8", "QAT"] == "failed [1]"
    assert cells["w8a16", "QAT"] == "missing"
    assert table.notes[0].startswith("[1] TrainingError: the loss is nan (")


def test_seeds_that_failed_are_marked_beside_the_others() -> None:
    runs = [record(experiment(seed=1)), failed(experiment(seed=2))]
    qat = rows_of(overview_table(only(runs)))[-1]
    assert qat["mrpc"].endswith("n=1, failed [1]")


def test_sample_and_smoke_stand_apart_without_average_and_without_published_rows() -> None:
    tasks = ("mrpc", "cola")
    model = "google-bert/bert-base-uncased"
    small: dict[str, Any] = {"budget": {"name": "smoke", "train_steps": 8}}
    runs = [record(experiment(task, model)) for task in tasks]
    runs += [record(experiment(task, model), source="sample") for task in tasks]
    runs += [record(experiment(task, model, **small)) for task in tasks]
    tables = [overview_table(each, published()) for each in overviews(runs, AIMET)]
    assert [table.title for table in tables] == [
        "overview: GLUE", "overview: GLUE, smoke", "overview: GLUE, sample",
    ]  # fmt: skip
    assert [table.foreign > 0 for table in tables] == [True, False, False]
    assert ["GLUE (aimet)" in table.columns for table in tables] == [True, False, False]
    assert "made-up" in tables[2].caption[0]


def test_answers_have_em_and_f1_and_translations_bleu() -> None:
    squad = experiment()
    squad["task"] = {
        **squad["task"],
        "name": "squad",
        "kind": "question_answering",
        "metrics": ["f1", "exact_match"],
    }
    multi30k = experiment()
    multi30k["task"] = {
        **multi30k["task"],
        "name": "multi30k_en_de",
        "kind": "translation",
        "metrics": ["bleu"],
    }
    mine = experiment()
    mine["task"] = {**mine["task"], "name": "mine"}
    found = {
        each.family: each
        for each in overviews(
            [
                record(squad, scores={"fp32": {"f1": 88.5, "exact_match": 81.0}}),
                record(multi30k, scores={"fp32": {"bleu": 33.0}}),
                record(mine),
            ],
            AIMET,
        )
    }
    assert list(found) == ["questions", "translation", "other tasks"]
    assert [column.title for column in found["questions"].columns] == ["squad EM", "squad F1"]
    assert rows_of(overview_table(found["questions"]))[0]["squad EM"] == "81.00"
    assert [column.title for column in found["translation"].columns] == ["multi30k_en_de bleu"]
    assert [column.title for column in found["other tasks"].columns] == ["mine F1"]
    table = overview_table(found["questions"], published())
    fields = dict(zip(table.columns, table.rows[-1], strict=True))
    assert fields["model"].startswith("published: ")


def test_published_rows_are_in_none_of_our_numbers() -> None:
    runs = [record(experiment(task, "google-bert/bert-base-uncased")) for task in ("mrpc", "cola")]
    with_them, without = (report_of(runs, AIMET, choice) for choice in ("all", "none"))
    assert with_them.overviews == without.overviews
    assert with_them.averages == without.averages
    assert [each.cells for each in with_them.losses] == [each.cells for each in without.losses]
    assert with_them.published and not without.published
    ours, theirs = (overview_table(each.overviews[0], each.published) for each in (without, with_them))
    assert theirs.rows[: len(ours.rows)] == ours.rows


@pytest.mark.parametrize("task", ["cola", "mrpc"])
def test_one_task_alone_has_no_average_of_anybody(task: str) -> None:
    runs = [record(experiment(name, "google-bert/bert-base-uncased")) for name in ("mrpc", "cola")]
    report = report_of(runs, AIMET, tasks=[task])
    table = overview_table(report.overviews[0], report.published)
    assert [column for column in table.columns if column in ("mrpc", "cola")] == [task]
    assert "GLUE (aimet)" not in table.columns
    assert all(each[task] != "-" for each in rows_of(table))


def test_a_score_that_says_nothing_is_marked_in_its_cell() -> None:
    caveats = {"ptq": {"matthews": "not above 0, the level of chance"}}
    records = [record(experiment("cola"), caveats=caveats), record(experiment("mrpc"))]
    (overview,) = overviews(records, BY_NAME["aimet"])
    table = overview_table(overview)
    cells = [
        (row[2], name)
        for row in table.rows
        for name, cell in zip(table.columns, row, strict=True)
        if "‡" in cell
    ]
    assert cells == [("PTQ", "cola"), ("PTQ", "GLUE (aimet)")]
    assert any(note.startswith("‡") for note in table.notes)
