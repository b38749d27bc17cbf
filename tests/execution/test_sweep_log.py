"""The sweep log: requested jobs, their results, and the summary."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qexp.errors import FAILED, INTERRUPTED, INVALID, OK, StoreError
from qexp.execution.sweep_log import JobResult, SweepLog, records_of, summary, sweep_log_in
from qexp.records.record import write
from tests.support.record_factory import record

JOBS = (["task=cola", "seed=1"], ["task=mrpc", "seed=1"], ["task=rte", "seed=1"])
STAGES = [
    {"stage": "1-tokens", "key": "a", "state": "built", "seconds": 1.0},
    {"stage": "2-fp32", "key": "b", "state": "cached", "seconds": 0.1},
]


@pytest.fixture
def sweep_log(tmp_path: Path) -> SweepLog:
    sweep_log = SweepLog(tmp_path / "attempt")
    sweep_log.begin("table", "01234567")
    sweep_log.expect(JOBS, 0)
    return sweep_log


def _end(sweep_log: SweepLog, job: int, code: int = OK, **more: Any) -> JobResult:
    entry = JobResult(job=job, words=JOBS[job], code=code, **more)
    sweep_log.end(entry)
    return entry


def test_another_process_reads_what_was_asked_and_how_it_ended(sweep_log: SweepLog) -> None:
    entry = _end(sweep_log, 1, key="k", seconds=2.5, stages=STAGES, score=88.125)
    other = sweep_log_in(sweep_log.folder)
    assert other is not None
    assert (other.name, other.id) == ("table", "01234567")
    assert other.jobs == dict(enumerate(JOBS))
    assert other.entries == {1: entry}
    assert other.entry(0) is None


def test_a_folder_without_a_ledger_has_none(tmp_path: Path) -> None:
    assert sweep_log_in(tmp_path) is None


def test_a_search_adds_its_jobs_as_it_goes(sweep_log: SweepLog) -> None:
    sweep_log.expect([["seed=4"], ["seed=5"]], 3)
    assert list(sweep_log.jobs) == [0, 1, 2, 3, 4]
    assert sweep_log.jobs[4] == ["seed=5"]


def test_what_an_earlier_sweep_left_in_a_folder_does_not_count(sweep_log: SweepLog) -> None:
    _end(sweep_log, 0)
    (sweep_log.folder / "multirun.yaml").write_text("kept")
    sweep_log.begin("table", "76543210")
    sweep_log.expect(JOBS, 0)
    assert sweep_log.entries == {}
    assert (sweep_log.folder / "multirun.yaml").exists()


def test_a_job_gets_another_chance(sweep_log: SweepLog) -> None:
    _end(sweep_log, 0, FAILED, error="killed")
    sweep_log.forget(0)
    sweep_log.forget(0)
    assert sweep_log.entry(0) is None


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([OK, OK, OK], OK),
        ([OK, FAILED, OK], FAILED),
        ([OK, OK], FAILED),
        ([], FAILED),
        ([OK, INTERRUPTED], INTERRUPTED),
        ([FAILED, INTERRUPTED, OK], INTERRUPTED),
        ([INVALID, INVALID, INVALID], INVALID),
        ([INVALID, OK, OK], FAILED),
        ([INVALID, FAILED, INVALID], FAILED),
        ([INVALID], FAILED),
    ],
)
def test_exit_code_is_the_worst_and_a_job_without_a_word_failed(
    codes: list[int], code: int, sweep_log: SweepLog
) -> None:
    for job, each in enumerate(codes):
        _end(sweep_log, job, each)
    assert sweep_log.exit_code == code


def test_a_sweep_without_jobs_is_well(tmp_path: Path) -> None:
    sweep_log = SweepLog(tmp_path)
    sweep_log.begin("sweep", "0")
    assert sweep_log.exit_code == OK
    assert summary(sweep_log) == "sweep-0: 0 jobs, 0 ok, 0 not; 0 stages built, 0 reused"


def test_summary_of_a_sweep_that_is_well_is_one_line(sweep_log: SweepLog) -> None:
    for job in range(3):
        _end(sweep_log, job, stages=STAGES)
    assert summary(sweep_log) == "table-01234567: 3 jobs, 3 ok, 0 not; 3 stages built, 3 reused"


def test_summary_names_jobs_that_are_not_well_by_what_tells_them_apart(sweep_log: SweepLog) -> None:
    _end(sweep_log, 0, FAILED, error="the loss is nan", stages=STAGES)
    _end(sweep_log, 1, FAILED)
    assert summary(sweep_log).splitlines() == [
        "table-01234567: 3 jobs, 0 ok, 3 not; 1 stages built, 1 reused",
        "  job 0: task=cola: failed: the loss is nan",
        "  job 1: task=mrpc: finished, but its exported graph departs from torch",
        "  job 2: task=rte: has not ended: it did not start, or goes on",
        "  the same command goes on from here: what is finished is reused",
    ]


def test_summary_says_an_error_that_jobs_share_once(sweep_log: SweepLog) -> None:
    for job, error in enumerate(["data.text=reviw: no column", "no rows", "data.text=reviw: no column"]):
        _end(sweep_log, job, INVALID, error=error)
    assert summary(sweep_log).splitlines()[1:] == [
        "  2 jobs: refused: data.text=reviw: no column",
        "  job 1: task=mrpc: refused: no rows",
    ]


def test_summary_of_a_single_job_names_all_its_words(tmp_path: Path) -> None:
    sweep_log = SweepLog(tmp_path)
    sweep_log.begin("sweep", "0")
    sweep_log.expect([["task=cola", "seed=1"]], 0)
    assert "job 0: task=cola seed=1: has not ended" in summary(sweep_log)


def test_status_tells_a_failure_from_a_graph_that_departs() -> None:
    statuses = [
        JobResult(job=0, words=[], code=code, error=error).status
        for code, error in ((OK, None), (FAILED, "no"), (FAILED, None), (INTERRUPTED, None))
    ]
    assert statuses == ["ok", "failed", "parity", "interrupted"]


def test_an_interrupted_job_says_how_to_go_on(sweep_log: SweepLog) -> None:
    _end(sweep_log, 0, INTERRUPTED, error="interrupted; the same command goes on from here")
    line = summary(sweep_log).splitlines()[1]
    assert line == "  job 0: task=cola: interrupted; the same command goes on from here"


def test_entries_are_plain_json(sweep_log: SweepLog) -> None:
    _end(sweep_log, 2, stages=STAGES)
    assert json.loads((sweep_log.folder / "2.json").read_text())["stages"] == STAGES


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="QEXP_OUTPUTS"):
        SweepLog(tmp_path / "file" / "attempt").begin("sweep", "0")


def test_the_records_of_its_jobs_are_read_as_far_as_they_can_be(sweep_log: SweepLog, tmp_path: Path) -> None:
    write(replace(record(), key="here"), tmp_path / "records")
    (tmp_path / "records" / "cut.json").write_text("{")
    for job, key in enumerate(("here", "gone", "cut")):
        _end(sweep_log, job, key=key)
    assert [each.key for each in records_of(sweep_log, tmp_path)] == ["here"]
