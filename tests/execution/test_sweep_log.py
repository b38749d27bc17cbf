"""The list of a sweep's jobs: what was asked, how each ended, and what is said at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qexp.errors import FAILED, INTERRUPTED, OK, StoreError
from qexp.execution.sweep_log import Entry, Ledger, ledger_in, summary

JOBS = (["task=cola", "seed=1"], ["task=mrpc", "seed=1"], ["task=rte", "seed=1"])
STAGES = [
    {"stage": "1-tokens", "key": "a", "state": "built", "seconds": 1.0},
    {"stage": "2-fp32", "key": "b", "state": "cached", "seconds": 0.1},
]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "attempt")
    ledger.begin("table", "01234567")
    ledger.expect(JOBS, 0)
    return ledger


def _end(ledger: Ledger, job: int, code: int = OK, **more: Any) -> Entry:
    entry = Entry(job=job, words=JOBS[job], code=code, **more)
    ledger.end(entry)
    return entry


def test_another_process_reads_what_was_asked_and_how_it_ended(ledger: Ledger) -> None:
    entry = _end(ledger, 1, key="k", seconds=2.5, stages=STAGES, score=88.125)
    other = ledger_in(ledger.folder)
    assert other is not None
    assert (other.name, other.id) == ("table", "01234567")
    assert other.jobs == dict(enumerate(JOBS))
    assert other.entries == {1: entry}
    assert other.entry(0) is None


def test_a_folder_without_a_ledger_has_none(tmp_path: Path) -> None:
    assert ledger_in(tmp_path) is None


def test_a_search_adds_its_jobs_as_it_goes(ledger: Ledger) -> None:
    ledger.expect([["seed=4"], ["seed=5"]], 3)
    assert list(ledger.jobs) == [0, 1, 2, 3, 4]
    assert ledger.jobs[4] == ["seed=5"]


def test_what_an_earlier_sweep_left_in_a_folder_does_not_count(ledger: Ledger) -> None:
    _end(ledger, 0)
    (ledger.folder / "multirun.yaml").write_text("kept")
    ledger.begin("table", "76543210")
    ledger.expect(JOBS, 0)
    assert ledger.entries == {}
    assert (ledger.folder / "multirun.yaml").exists()


def test_a_job_gets_another_chance(ledger: Ledger) -> None:
    _end(ledger, 0, FAILED, error="killed")
    ledger.forget(0)
    ledger.forget(0)
    assert ledger.entry(0) is None


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([OK, OK, OK], OK),
        ([OK, FAILED, OK], FAILED),
        ([OK, OK], FAILED),
        ([], FAILED),
        ([OK, INTERRUPTED], INTERRUPTED),
        ([FAILED, INTERRUPTED, OK], INTERRUPTED),
    ],
)
def test_exit_code_is_the_worst_and_a_job_without_a_word_failed(
    codes: list[int], code: int, ledger: Ledger
) -> None:
    for job, each in enumerate(codes):
        _end(ledger, job, each)
    assert ledger.exit_code == code


def test_a_sweep_without_jobs_is_well(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin("sweep", "0")
    assert ledger.exit_code == OK
    assert summary(ledger) == "sweep-0: 0 jobs, 0 ok, 0 not; 0 stages built, 0 reused"


def test_summary_of_a_sweep_that_is_well_is_one_line(ledger: Ledger) -> None:
    for job in range(3):
        _end(ledger, job, stages=STAGES)
    assert summary(ledger) == "table-01234567: 3 jobs, 3 ok, 0 not; 3 stages built, 3 reused"


def test_summary_names_jobs_that_are_not_well_by_what_tells_them_apart(ledger: Ledger) -> None:
    _end(ledger, 0, FAILED, error="the loss is nan", stages=STAGES)
    _end(ledger, 1, FAILED)
    assert summary(ledger).splitlines() == [
        "table-01234567: 3 jobs, 0 ok, 3 not; 1 stages built, 1 reused",
        "  job 0: task=cola: failed: the loss is nan",
        "  job 1: task=mrpc: finished, but its exported graph departs from torch",
        "  job 2: task=rte: has not ended: it did not start, or goes on",
        "  the same command goes on from here: what is finished is reused",
    ]


def test_summary_of_a_single_job_names_all_its_words(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.begin("sweep", "0")
    ledger.expect([["task=cola", "seed=1"]], 0)
    assert "job 0: task=cola seed=1: has not ended" in summary(ledger)


def test_status_tells_a_failure_from_a_graph_that_departs() -> None:
    statuses = [
        Entry(job=0, words=[], code=code, error=error).status
        for code, error in ((OK, None), (FAILED, "no"), (FAILED, None))
    ]
    assert statuses == ["ok", "failed", "parity"]


def test_entries_are_plain_json(ledger: Ledger) -> None:
    _end(ledger, 2, stages=STAGES)
    assert json.loads((ledger.folder / "2.json").read_text())["stages"] == STAGES


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="QEXP_OUTPUTS"):
        Ledger(tmp_path / "file" / "attempt").begin("sweep", "0")
