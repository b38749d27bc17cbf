"""Relative loss: the numbers of the page that introduced it, and pairing by seed."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qexp.records.record import Record
from qexp.reporting.comparison import Cell, compare
from qexp.reporting.published import published
from qexp.reporting.relative_loss import AGAINST_CONTROL, losses, published_losses, relative_loss
from qexp.reporting.tables.relative_loss import loss_tables
from tests.support.record_factory import experiment, failed, record

NLP_ARCHITECT = {
    "cola": 0.00, "mrpc": 0.49, "qnli": -0.35, "qqp": -0.14, "rte": 1.32, "sst2": 0.13, "stsb": 0.65,
    "squad": 0.81,
}  # fmt: skip
"""Column "Quantization Aware Training" of NLP Architect's page on Q8BERT, BERT-base."""


def test_losses_of_q8bert_are_those_that_it_printed() -> None:
    found = {
        each.task: each.loss
        for each in published_losses(published())
        if (each.row.source, each.row.method) == ("Q8BERT", "qat")
    }
    assert found == pytest.approx(NLP_ARCHITECT, abs=0.0051)


@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_the_loss_gives_the_score_back(fp32: float, quantized: float) -> None:
    loss = relative_loss(fp32, quantized)
    assert loss is not None
    assert fp32 * (1 - loss / 100) == pytest.approx(quantized, abs=1e-9)


@pytest.mark.parametrize(("fp32", "quantized"), [(None, 1.0), (1.0, None), (0.0, 1.0), (-3.0, 1.0)])
def test_nothing_relative_to_nothing(fp32: float | None, quantized: float | None) -> None:
    assert relative_loss(fp32, quantized) is None


def scores(fp32: float, ptq: float, qat: float) -> dict[str, dict[str, float | None]]:
    return {stage: {"f1": value} for stage, value in (("fp32", fp32), ("ptq", ptq), ("qat", qat))}


def test_seeds_are_paired_before_the_median() -> None:
    numbers = {1: (80.0, 60.0, 79.0), 2: (90.0, 63.0, 90.9), 3: (50.0, 45.0, 49.0)}
    runs = [record(experiment(seed=seed), scores=scores(*of)) for seed, of in numbers.items()]
    (loss,) = (each for each in losses(compare(runs)) if each.metric == "f1")
    assert loss.cells["ptq"].values == pytest.approx({1: 25.0, 2: 30.0, 3: 10.0})
    assert loss.cells["ptq"].median == pytest.approx(statistics.median((25.0, 30.0, 10.0)))
    assert loss.cells["qat"].values == pytest.approx({1: 1.25, 2: -1.0, 3: 2.0})
    (table,) = loss_tables(losses(compare(runs)), ())
    row = next(dict(zip(table.columns, each, strict=True)) for each in table.rows if each[0] == "f1")
    assert row["PTQ loss (%)"] == "25.00 (10.00..30.00)"
    assert row["QAT loss (%)"] == "1.25 (-1.00..2.00)"


def test_fp32_alone_loses_nothing_and_a_failure_is_marked() -> None:
    assert losses(compare([record(experiment(quant="fp32"))])) == []
    runs = [record(experiment(seed=1)), failed(experiment(seed=2))]
    (table,) = loss_tables(losses(compare(runs)), ())
    assert any("failed [1]" in cell for cell in table.rows[0])
    assert table.notes[0].startswith("[1] TrainingError: the loss is nan")


KD = {"logits": 1.0}


def control(seed: int, score: float, **method: Any) -> Record:
    tree = experiment(quant="fp32", seed=seed, method={"kind": "control", "distillation": KD, **method})
    return record(tree, scores={"fp32": {"f1": 80.0}, "control": {"f1": score}})


def distilled(seed: int, score: float, **method: Any) -> Record:
    tree = experiment(seed=seed, method={"kind": "qat", "distillation": KD, **method})
    return record(tree, scores=scores(80.0, 60.0, score))


def against_control(runs: list[Record]) -> list[Cell]:
    found = [each for each in losses(compare(runs)) if each.metric == "f1"]
    return [each.cells[AGAINST_CONTROL] for each in found if AGAINST_CONTROL in each.cells]


def test_qat_is_held_against_its_control_seed_by_seed() -> None:
    runs = [control(1, 90.0), control(2, 80.0), distilled(1, 81.0), distilled(2, 84.0), distilled(3, 84.0)]
    (cell,) = against_control(runs)
    assert cell.values == pytest.approx({1: 10.0, 2: -5.0})
    assert cell.missing == (3,)
    (table,) = loss_tables(losses(compare(runs)), ())
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["QAT loss (%)"].startswith("-5.00 ")
    assert row["QAT loss against control (%)"] == "2.50 (-5.00..10.00) n=2"


@pytest.mark.parametrize(
    "other",
    [{"epochs": 3.0}, {"distillation": {}}, {"distillation": {"logits": 2.0}}, {"learning_rate": 1e-3}],
    ids=str,
)
def test_another_training_is_no_control(other: dict[str, Any]) -> None:
    assert against_control([control(1, 90.0), distilled(1, 81.0)])
    assert not against_control([control(1, 90.0, **other), distilled(1, 81.0)])


def test_a_control_is_one_whatever_the_ranges_are() -> None:
    assert against_control([control(1, 90.0), distilled(1, 81.0, ranges="ema", range_decay=0.5)])


def test_published_losses_stand_below_real_rows_of_full_budgets_only() -> None:
    theirs = published_losses(published())
    real = losses(compare([record(experiment("cola", "google-bert/bert-base-uncased"))]))
    (table,) = loss_tables(real, theirs)
    assert table.foreign > 0
    assert all(row[1].startswith("published: ") for row in table.rows[-table.foreign :])
    sample = losses(compare([record(experiment("cola"), source="sample")]))
    assert [table.foreign for table in loss_tables(sample, theirs)] == [0]


def test_a_share_of_no_score_is_undefined_and_a_note_says_why() -> None:
    def table(fp32: float) -> Any:
        scores = {"fp32": {"matthews": fp32}, "ptq": {"matthews": 0.0}}
        runs = [record(experiment("cola", method={"kind": "ptq"}), scores=scores)]
        (found,) = loss_tables(losses(compare(runs)), [])
        return found

    assert table(0.0).rows[0][-1] == "undefined"
    assert table(0.0).notes[0].startswith("undefined: FP32 itself scores 0 or less")
    assert table(50.0).rows[0][-1] == "100.00"
    assert not any("FP32 itself" in note for note in table(50.0).notes)
