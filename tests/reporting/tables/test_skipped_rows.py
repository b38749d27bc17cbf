"""Rows that runs could not use, below the tables of a report."""

from __future__ import annotations

import dataclasses

from qexp.data.skipped import Skipped, notes_on_skipped
from qexp.reporting.comparison import compare
from qexp.reporting.tables.comparison import table_of
from tests.support.record_factory import experiment, record

SKIPPED = Skipped("the answer is not at answer_start", 3, ("a", "b", "c"))
(SENTENCE,) = notes_on_skipped([SKIPPED], 120, "train", 0.05)


def test_a_reason_is_told_once_with_its_share_and_ids() -> None:
    runs = [record(experiment(seed=seed)) for seed in (1, 2)]
    (told,) = compare([dataclasses.replace(run, warnings=["another", SENTENCE]) for run in runs])
    assert [note for note in table_of(told).notes if "left out" in note] == [f"rows left out: {SENTENCE}"]
    assert "a, b, c (2.5 % of 120)" in SENTENCE


def test_runs_are_named_where_others_used_all_rows() -> None:
    without = record(experiment(quant="w4a8"))
    (told,) = compare([dataclasses.replace(record(experiment()), warnings=[SENTENCE]), without])
    (note,) = (note for note in table_of(told).notes if "left out" in note)
    assert note.endswith("(minilm w8a8 qat seed 1)")
