"""Killed runs: one Record each, whichever process writes it, and never over a result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from qexp.errors import FAILED, OK, StoreError
from qexp.execution import crash_records as module
from qexp.execution.crash_records import (
    KILLED,
    count_running,
    killed_failure,
    pending_record,
    record_dead_runs,
    running_folder,
)
from qexp.execution.slurm import REQUEUED
from qexp.execution.sweep_log import JobResult, SweepLog
from qexp.records.checks import time_of
from qexp.records.record import Record, delete_superseded_failure, read_all, records_folder, save_record
from tests.support.record_factory import experiment, record

_RUN = """
import os, signal, socket, sys, time
from pathlib import Path
if os.environ.get("ELSEWHERE"):
    socket.gethostname = lambda: "elsewhere"
from qexp.execution.crash_records import pending_record
from qexp.records.record import Record
outputs, folder, text = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with pending_record(outputs, folder) as pending:
    pending.write(Record.from_json(text), ["seed=1"])
    print("runs", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def sweep_log(tmp_path: Path) -> SweepLog:
    sweep_log = SweepLog(tmp_path / "attempt")
    sweep_log.begin("table", "01234567")
    sweep_log.expect([["seed=0"], ["seed=1"]], 0)
    return sweep_log


def _dying(job: int | None = 1, **more: object) -> Record:
    """What would be said of a run if it died now."""
    sweep = None if job is None else {"name": "table", "id": "01234567", "job": job}
    return record(
        experiment(), status="failed", error=killed_failure("in 2-fp32"), scores={}, sweep=sweep, **more
    )  # fmt: skip


@contextmanager
def _other_process(outputs: Path, sweep_log: SweepLog) -> Iterator[subprocess.Popen[bytes]]:
    """A run in another process, which is past its first words."""
    command = [sys.executable, "-c", _RUN, str(outputs), str(sweep_log.folder), _dying().to_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"runs\n"
            yield process
        finally:
            process.kill()


def _killed(outputs: Path, sweep_log: SweepLog) -> None:
    with _other_process(outputs, sweep_log) as process:
        process.kill()


def _left(outputs: Path) -> list[str]:
    return sorted(file.name for file in running_folder(outputs).iterdir())


def _records(outputs: Path) -> list[Record]:
    records, unreadable = read_all(records_folder(outputs))
    assert not unreadable
    return records


def test_a_run_that_was_killed_gets_its_record_once(outputs: Path, sweep_log: SweepLog) -> None:
    _killed(outputs, sweep_log)
    (told,) = record_dead_runs(outputs)
    assert record_dead_runs(outputs) == []
    assert _records(outputs) == [told]
    assert told.status == "failed"
    assert told.error is not None
    assert told.error["type"] == KILLED
    assert "killed in 2-fp32: no more word from" in told.error["message"]
    assert _left(outputs) == []


def test_a_job_of_a_sweep_that_was_killed_gets_its_entry(outputs: Path, sweep_log: SweepLog) -> None:
    _killed(outputs, sweep_log)
    (told,) = record_dead_runs(outputs)
    entry = sweep_log.entry(1)
    assert entry is not None
    assert (entry.code, entry.key, entry.words) == (FAILED, told.key, ["seed=1"])
    assert entry.error is not None
    assert entry.error.startswith("killed in 2-fp32")
    assert entry.seconds > 0
    assert sweep_log.entry(0) is None


def test_an_entry_that_the_job_wrote_itself_stays(outputs: Path, sweep_log: SweepLog) -> None:
    _killed(outputs, sweep_log)
    own = JobResult(job=1, words=["seed=1"], code=OK)
    sweep_log.end(own)
    record_dead_runs(outputs)
    assert sweep_log.entry(1) == own


def test_a_run_that_goes_on_is_left_alone(outputs: Path, sweep_log: SweepLog) -> None:
    with _other_process(outputs, sweep_log):
        assert count_running(outputs) == 1
        assert record_dead_runs(outputs) == []
        assert len(_left(outputs)) == 2
    assert count_running(outputs) == 0


def test_a_run_of_a_sweep_that_is_over_is_dead_whatever_its_claim_says(
    outputs: Path, sweep_log: SweepLog
) -> None:
    other = SweepLog(sweep_log.folder.with_name("other"))
    other.begin("table", "7")
    with _other_process(outputs, sweep_log):
        assert record_dead_runs(outputs, over=other) == []
        assert len(record_dead_runs(outputs, over=sweep_log)) == 1
    assert sweep_log.entry(1) is not None


def test_two_that_find_a_dead_run_at_once_bury_it_once(
    outputs: Path, sweep_log: SweepLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    _killed(outputs, sweep_log)
    filed: list[Record] = []

    def slowly(told: Record, folder: Path) -> Path:
        filed.append(told)
        time.sleep(0.3)
        return save_record(told, folder)

    monkeypatch.setattr(module, "save_record", slowly)
    found: list[Record] = []
    threads = [threading.Thread(target=lambda: found.extend(record_dead_runs(outputs))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(filed) == len(found) == len(_records(outputs)) == 1
    assert _left(outputs) == []


def test_one_who_dies_while_burying_leaves_it_to_the_next(
    outputs: Path, sweep_log: SweepLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    _killed(outputs, sweep_log)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SweepLog, "end", dies)
        with pytest.raises(KeyboardInterrupt):
            record_dead_runs(outputs)
    assert len(record_dead_runs(outputs)) == 1
    assert len(_records(outputs)) == 1
    assert sweep_log.entry(1) is not None


@pytest.mark.parametrize("finished", ["2026-11-01T10:00:00+00:00", "2026-11-01T10:00:07+00:00"])
def test_who_dies_after_its_result_or_beside_one_that_goes_through_leaves_no_failure(
    finished: str, outputs: Path
) -> None:
    dying = replace(_dying(None), started="2026-11-01T10:00:00+00:00")
    result = replace(dying, status="ok", error=None, finished=finished)
    with suppress(SystemExit), pending_record(outputs, None) as words:
        words.write(dying, [])
        save_record(result, records_folder(outputs))
        raise SystemExit(143)
    assert len(record_dead_runs(outputs)) == 1
    assert _records(outputs) == [result]
    assert _left(outputs) == []


def test_a_run_that_died_before_it_knew_its_rows_is_found_by_its_experiment(outputs: Path) -> None:
    dying = replace(_dying(None), key="without-rows", started="2026-11-01T10:00:00+00:00")
    result = replace(_dying(None), status="ok", error=None, finished="2026-11-01T10:00:07+00:00")
    other = replace(result, key="other", experiment=experiment(seed=7))
    for name, there in (("other", [other]), ("same", [other, result])):
        for each in there:
            save_record(each, records_folder(outputs))
        with suppress(SystemExit), pending_record(outputs, None) as words:
            words.write(dying, [])
            raise SystemExit(143)
        record_dead_runs(outputs)
        failures = [each.key for each in _records(outputs) if each.status == "failed"]
        assert failures == (["without-rows"] if name == "other" else []), name
        delete_superseded_failure("without-rows", records_folder(outputs))


def test_a_death_never_goes_over_a_result(outputs: Path, sweep_log: SweepLog) -> None:
    began = time_of(_dying().started) - timedelta(seconds=1)
    result = replace(_dying(), status="ok", error=None, finished=began.isoformat())
    save_record(result, records_folder(outputs))
    _killed(outputs, sweep_log)
    record_dead_runs(outputs)
    assert sorted(each.status for each in _records(outputs)) == ["failed", "ok"]
    assert result in _records(outputs)


@pytest.mark.parametrize("end", [None, ValueError("no"), KeyboardInterrupt(), SystemExit(REQUEUED)])
def test_a_run_that_ended_or_comes_again_leaves_nothing(end: BaseException | None, outputs: Path) -> None:
    caught = None
    try:
        with pending_record(outputs, None) as words:
            words.write(_dying(None), [])
            assert len(_left(outputs)) == 2
            if end is not None:
                raise end
    except BaseException as error:
        caught = error
    assert caught is end
    assert _left(outputs) == []
    assert record_dead_runs(outputs) == []


def test_a_run_that_ends_before_it_says_anything_leaves_nothing(outputs: Path) -> None:
    with pending_record(outputs, None):
        pass
    with pytest.raises(SystemExit), pending_record(outputs, None):
        raise SystemExit(REQUEUED)
    assert _left(outputs) == []


def test_a_signal_that_ends_the_process_in_order_is_a_kill_too(outputs: Path, sweep_log: SweepLog) -> None:
    with _other_process(outputs, sweep_log) as process:
        process.terminate()
        assert process.wait(timeout=20) == 143
    (told,) = record_dead_runs(outputs)
    assert told.error is not None
    assert told.error["type"] == KILLED


def test_the_last_words_are_those_that_count(outputs: Path) -> None:
    with suppress(SystemExit), pending_record(outputs, None) as words:
        words.write(replace(_dying(None), error=killed_failure("in 1-tokens")), [])
        words.write(replace(_dying(None), error=killed_failure("in 5-qat")), [])
        raise SystemExit(1)
    (told,) = record_dead_runs(outputs)
    assert told.error is not None
    assert told.error["message"].startswith("killed in 5-qat")


def test_a_run_of_another_machine_is_dead_after_a_long_silence_by_the_clock_of_the_disk(
    outputs: Path, sweep_log: SweepLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSEWHERE", "1")
    _killed(outputs, sweep_log)
    assert record_dead_runs(outputs) == []
    assert count_running(outputs) == 1
    (lease,) = running_folder(outputs).glob("*.lease")
    os.utime(lease, (time.time() - 110,) * 2)
    assert record_dead_runs(outputs) == []
    os.utime(lease, (time.time() - 130,) * 2)
    assert count_running(outputs) == 0
    assert len(record_dead_runs(outputs)) == 1
    assert _left(outputs) == []


def test_a_job_of_a_scheduler_is_named_with_what_that_says(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert module.scheduler_id() == "12"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "11")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setattr(module, "slurm_job_state", {"11_3": "CANCELLED by 0"}.get)
    with suppress(SystemExit), pending_record(outputs, None) as words:
        words.write(_dying(None), [])
        raise SystemExit(1)
    (told,) = record_dead_runs(outputs)
    assert told.error is not None
    assert told.error["message"].endswith("SLURM job 11_3, which says CANCELLED by 0")


@pytest.mark.parametrize("way", ["outputs", "running"])
def test_outputs_that_cannot_be_written_are_one_clear_error(way: str, outputs: Path) -> None:
    blocked = outputs if way == "outputs" else running_folder(outputs)
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("in the way")
    with pytest.raises(StoreError, match="QEXP_OUTPUTS"), pending_record(outputs, None):
        pytest.fail("nothing can be written")


def test_a_disk_that_fills_while_a_run_goes_on_is_one_clear_error(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with pending_record(outputs, None) as words:
        words.write(_dying(None), [])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match="No space left"):
                words.write(_dying(None), [])
        assert json.loads(words.file.read_text())["record"]["error"]["type"] == KILLED


@pytest.mark.parametrize("text", ["", "{", "[]", '{"record": {}}', "{}"])
def test_words_that_cannot_be_read_are_named(text: str, outputs: Path) -> None:
    running_folder(outputs).mkdir(parents=True)
    (running_folder(outputs) / "foreign.json").write_text(text)
    with pytest.raises(StoreError, match=r"foreign\.json: not the last words of a run"):
        record_dead_runs(outputs)


def test_words_of_another_version_with_more_fields_are_understood(outputs: Path, sweep_log: SweepLog) -> None:
    _killed(outputs, sweep_log)
    (file,) = running_folder(outputs).glob("*.json")
    tree = json.loads(file.read_text())
    file.write_text(json.dumps({**tree, "new": 1, "record": {**tree["record"], "new": 1}}))
    assert len(record_dead_runs(outputs)) == 1
