"""Runs that die without a word: one Record each, whoever finds them, and never over a result."""

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
from qexp.execution.crash_records import KILLED, bury, death, going_on, last_words, running_folder
from qexp.execution.slurm import REQUEUED
from qexp.execution.sweep_log import Entry, Ledger
from qexp.records.checks import time_of
from qexp.records.record import Record, file_record, forget_failure, read_all, records_folder
from tests.support.record_factory import experiment, record

_RUN = """
import os, signal, socket, sys, time
from pathlib import Path
if os.environ.get("ELSEWHERE"):
    socket.gethostname = lambda: "elsewhere"
from qexp.last_words import last_words
from qexp.records import Record
outputs, ledger, text = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with last_words(outputs, ledger) as words:
    words.write(Record.from_json(text), ["seed=1"])
    print("runs", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "attempt")
    ledger.begin("table", "01234567")
    ledger.expect([["seed=0"], ["seed=1"]], 0)
    return ledger


def _dying(job: int | None = 1, **more: object) -> Record:
    """What would be said of a run if it died now."""
    sweep = None if job is None else {"name": "table", "id": "01234567", "job": job}
    return record(
        experiment(), status="failed", error=death("in 2-fp32"), scores={}, sweep=sweep, **more
    )  # fmt: skip


@contextmanager
def _other_process(outputs: Path, ledger: Ledger) -> Iterator[subprocess.Popen[bytes]]:
    """A run in another process, which is past its first words."""
    command = [sys.executable, "-c", _RUN, str(outputs), str(ledger.folder), _dying().to_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"runs\n"
            yield process
        finally:
            process.kill()


def _killed(outputs: Path, ledger: Ledger) -> None:
    with _other_process(outputs, ledger) as process:
        process.kill()


def _left(outputs: Path) -> list[str]:
    return sorted(file.name for file in running_folder(outputs).iterdir())


def _records(outputs: Path) -> list[Record]:
    records, unreadable = read_all(records_folder(outputs))
    assert not unreadable
    return records


def test_a_run_that_was_killed_gets_its_record_once(outputs: Path, ledger: Ledger) -> None:
    _killed(outputs, ledger)
    (told,) = bury(outputs)
    assert bury(outputs) == []
    assert _records(outputs) == [told]
    assert told.status == "failed"
    assert told.error is not None
    assert told.error["type"] == KILLED
    assert "killed in 2-fp32: no more word from" in told.error["message"]
    assert _left(outputs) == []


def test_a_job_of_a_sweep_that_was_killed_gets_its_entry(outputs: Path, ledger: Ledger) -> None:
    _killed(outputs, ledger)
    (told,) = bury(outputs)
    entry = ledger.entry(1)
    assert entry is not None
    assert (entry.code, entry.key, entry.words) == (FAILED, told.key, ["seed=1"])
    assert entry.error is not None
    assert entry.error.startswith("killed in 2-fp32")
    assert entry.seconds > 0
    assert ledger.entry(0) is None


def test_an_entry_that_the_job_wrote_itself_stays(outputs: Path, ledger: Ledger) -> None:
    _killed(outputs, ledger)
    own = Entry(job=1, words=["seed=1"], code=OK)
    ledger.end(own)
    bury(outputs)
    assert ledger.entry(1) == own


def test_a_run_that_goes_on_is_left_alone(outputs: Path, ledger: Ledger) -> None:
    with _other_process(outputs, ledger):
        assert going_on(outputs) == 1
        assert bury(outputs) == []
        assert len(_left(outputs)) == 2
    assert going_on(outputs) == 0


def test_a_run_of_a_sweep_that_is_over_is_dead_whatever_its_claim_says(outputs: Path, ledger: Ledger) -> None:
    other = Ledger(ledger.folder.with_name("other"))
    other.begin("table", "7")
    with _other_process(outputs, ledger):
        assert bury(outputs, over=other) == []
        assert len(bury(outputs, over=ledger)) == 1
    assert ledger.entry(1) is not None


def test_two_that_find_a_dead_run_at_once_bury_it_once(
    outputs: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _killed(outputs, ledger)
    filed: list[Record] = []

    def slowly(told: Record, folder: Path) -> Path:
        filed.append(told)
        time.sleep(0.3)
        return file_record(told, folder)

    monkeypatch.setattr(module, "file_record", slowly)
    found: list[Record] = []
    threads = [threading.Thread(target=lambda: found.extend(bury(outputs))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(filed) == len(found) == len(_records(outputs)) == 1
    assert _left(outputs) == []


def test_one_who_dies_while_burying_leaves_it_to_the_next(
    outputs: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _killed(outputs, ledger)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "end", dies)
        with pytest.raises(KeyboardInterrupt):
            bury(outputs)
    assert len(bury(outputs)) == 1
    assert len(_records(outputs)) == 1
    assert ledger.entry(1) is not None


@pytest.mark.parametrize("finished", ["2026-11-01T10:00:00+00:00", "2026-11-01T10:00:07+00:00"])
def test_who_dies_after_its_result_or_beside_one_that_goes_through_leaves_no_failure(
    finished: str, outputs: Path
) -> None:
    dying = replace(_dying(None), started="2026-11-01T10:00:00+00:00")
    result = replace(dying, status="ok", error=None, finished=finished)
    with suppress(SystemExit), last_words(outputs, None) as words:
        words.write(dying, [])
        file_record(result, records_folder(outputs))
        raise SystemExit(143)
    assert len(bury(outputs)) == 1
    assert _records(outputs) == [result]
    assert _left(outputs) == []


def test_a_run_that_died_before_it_knew_its_rows_is_found_by_its_experiment(outputs: Path) -> None:
    dying = replace(_dying(None), key="without-rows", started="2026-11-01T10:00:00+00:00")
    result = replace(_dying(None), status="ok", error=None, finished="2026-11-01T10:00:07+00:00")
    other = replace(result, key="other", experiment=experiment(seed=7))
    for name, there in (("other", [other]), ("same", [other, result])):
        for each in there:
            file_record(each, records_folder(outputs))
        with suppress(SystemExit), last_words(outputs, None) as words:
            words.write(dying, [])
            raise SystemExit(143)
        bury(outputs)
        failures = [each.key for each in _records(outputs) if each.status == "failed"]
        assert failures == (["without-rows"] if name == "other" else []), name
        forget_failure("without-rows", records_folder(outputs))


def test_a_death_never_goes_over_a_result(outputs: Path, ledger: Ledger) -> None:
    began = time_of(_dying().started) - timedelta(seconds=1)
    result = replace(_dying(), status="ok", error=None, finished=began.isoformat())
    file_record(result, records_folder(outputs))
    _killed(outputs, ledger)
    bury(outputs)
    assert sorted(each.status for each in _records(outputs)) == ["failed", "ok"]
    assert result in _records(outputs)


@pytest.mark.parametrize("end", [None, ValueError("no"), KeyboardInterrupt(), SystemExit(REQUEUED)])
def test_a_run_that_ended_or_comes_again_leaves_nothing(end: BaseException | None, outputs: Path) -> None:
    caught = None
    try:
        with last_words(outputs, None) as words:
            words.write(_dying(None), [])
            assert len(_left(outputs)) == 2
            if end is not None:
                raise end
    except BaseException as error:
        caught = error
    assert caught is end
    assert _left(outputs) == []
    assert bury(outputs) == []


def test_a_run_that_ends_before_it_says_anything_leaves_nothing(outputs: Path) -> None:
    with last_words(outputs, None):
        pass
    with pytest.raises(SystemExit), last_words(outputs, None):
        raise SystemExit(REQUEUED)
    assert _left(outputs) == []


def test_a_signal_that_ends_the_process_in_order_is_a_kill_too(outputs: Path, ledger: Ledger) -> None:
    with _other_process(outputs, ledger) as process:
        process.terminate()
        assert process.wait(timeout=20) == 143
    (told,) = bury(outputs)
    assert told.error is not None
    assert told.error["type"] == KILLED


def test_the_last_words_are_those_that_count(outputs: Path) -> None:
    with suppress(SystemExit), last_words(outputs, None) as words:
        words.write(replace(_dying(None), error=death("in 1-tokens")), [])
        words.write(replace(_dying(None), error=death("in 5-qat")), [])
        raise SystemExit(1)
    (told,) = bury(outputs)
    assert told.error is not None
    assert told.error["message"].startswith("killed in 5-qat")


def test_a_run_of_another_machine_is_dead_after_a_long_silence_by_the_clock_of_the_disk(
    outputs: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSEWHERE", "1")
    _killed(outputs, ledger)
    assert bury(outputs) == []
    assert going_on(outputs) == 1
    (lease,) = running_folder(outputs).glob("*.lease")
    os.utime(lease, (time.time() - 110,) * 2)
    assert bury(outputs) == []
    os.utime(lease, (time.time() - 130,) * 2)
    assert going_on(outputs) == 0
    assert len(bury(outputs)) == 1
    assert _left(outputs) == []


def test_a_job_of_a_scheduler_is_named_with_what_that_says(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert module.scheduler_id() == "12"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "11")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setattr(module, "verdict", {"11_3": "CANCELLED by 0"}.get)
    with suppress(SystemExit), last_words(outputs, None) as words:
        words.write(_dying(None), [])
        raise SystemExit(1)
    (told,) = bury(outputs)
    assert told.error is not None
    assert told.error["message"].endswith("SLURM job 11_3, which says CANCELLED by 0")


@pytest.mark.parametrize("way", ["outputs", "running"])
def test_outputs_that_cannot_be_written_are_one_clear_error(way: str, outputs: Path) -> None:
    blocked = outputs if way == "outputs" else running_folder(outputs)
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("in the way")
    with pytest.raises(StoreError, match="QEXP_OUTPUTS"), last_words(outputs, None):
        pytest.fail("nothing can be written")


def test_a_disk_that_fills_while_a_run_goes_on_is_one_clear_error(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with last_words(outputs, None) as words:
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
        bury(outputs)


def test_words_of_another_version_with_more_fields_are_understood(outputs: Path, ledger: Ledger) -> None:
    _killed(outputs, ledger)
    (file,) = running_folder(outputs).glob("*.json")
    tree = json.loads(file.read_text())
    file.write_text(json.dumps({**tree, "new": 1, "record": {**tree["record"], "new": 1}}))
    assert len(bury(outputs)) == 1
