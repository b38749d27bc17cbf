"""The Record that a run leaves if it is killed.

    outputs/running/<run>.json     what is known of a run that goes on: its Record, were it to die now
    outputs/running/<run>.lease    claimed by its process
    outputs/running/<run>.burial   claimed by who files the Record of a dead one

A process that is killed with SIGKILL, by a scheduler or for its memory has no chance to say so. Whoever
comes next (another run, the end of the sweep, a report) sees that nobody holds the claim any more, and
files the Record in its name.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qexp.artifacts import writing
from qexp.artifacts.disk import make_folder
from qexp.artifacts.lease import claimed, is_claimed
from qexp.errors import FAILED, StoreError
from qexp.execution.slurm import REQUEUED, verdict
from qexp.execution.sweep_log import Entry, Ledger
from qexp.records.record import RUNNING, Record, file_record, made_good, records_folder, write_text
from qexp.records.schema import Failure

KILLED = "Killed"
"""Type of the error of a run that died without a word."""
FIRST = "before its first stage"


@dataclass(frozen=True)
class LastWords:
    """Of one run that goes on."""

    file: Path
    ledger: Path | None
    """Folder of the sweep's ledger."""

    def write(self, record: Record, words: list[str]) -> None:
        """Replace what would be filed if the process died now; ``words`` tell the job in its sweep.

        Raises:
            StoreError: The outputs cannot be written.
        """
        tree = {
            "record": json.loads(record.to_json()),
            "ledger": str(self.ledger) if self.ledger else None,
            "words": words,
            "scheduler": scheduler_id(),
        }
        write_text(self.file, json.dumps(tree))


@contextmanager
def last_words(outputs: Path, ledger: Path | None) -> Iterator[LastWords]:
    """Claim a place for the words; they are withdrawn at the end, whatever it is, but not by a kill.

    SIGTERM that comes as ``SystemExit`` is a kill; a job that goes back to its scheduler's queue comes again.

    Raises:
        StoreError: The outputs cannot be written.
    """
    folder = running_folder(outputs)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    with writing(folder):
        make_folder(folder)
        with claimed(folder / f"{name}.lease", lambda: None):
            words = LastWords(folder / f"{name}.json", ledger)
            try:
                yield words
            except SystemExit as end:
                if end.code == REQUEUED:
                    words.file.unlink(missing_ok=True)
                raise
            except BaseException:
                words.file.unlink(missing_ok=True)
                raise
            words.file.unlink(missing_ok=True)


def running_folder(outputs: Path) -> Path:
    """Folder of the runs that go on."""
    return outputs / RUNNING


def death(when: str) -> Failure:
    """What a Record says of a run that died; ``when`` is such as ``in 2-fp32``."""
    where = f"{socket.gethostname()}, process {os.getpid()}"
    if job := scheduler_id():
        where += f", SLURM job {job}"
    message = f"killed {when}: no more word from {where}"
    return {"type": KILLED, "message": message, "traceback": ""}


def scheduler_id() -> str | None:
    """SLURM's name of the job that this process is in."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    return os.environ.get("SLURM_JOB_ID")


def bury(outputs: Path, over: Ledger | None = None) -> list[Record]:
    """File the Records of runs that are dead; returns them.

    Args:
        outputs: Folder for everything a run writes.
        over: A sweep of which it is known that no process works on it any more.

    Raises:
        StoreError: A Record or an entry in a ledger cannot be written, or last words cannot be read.
    """
    records = []
    for file in sorted(running_folder(outputs).glob("*.json")):
        with suppress(FileNotFoundError):  # the run has ended, or another process buried it
            if is_claimed(file.with_suffix(".lease")) and not _is_of(over, file):
                continue
            with claimed(file.with_suffix(".burial"), lambda: None):
                records.append(_file(outputs, file, _read(file)))
    return records


def _is_of(ledger: Ledger | None, file: Path) -> bool:
    return ledger is not None and bool(_read(file)["ledger"] == str(ledger.folder))


def _read(file: Path) -> dict[str, Any]:
    """What ``LastWords.write`` wrote, with the Record as one."""
    try:
        tree: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {**tree, "record": Record.from_json(json.dumps(tree["record"]))}
    except (ValueError, LookupError, TypeError, StoreError) as error:
        raise StoreError(
            f"{file}: not the last words of a run ({type(error).__name__}: {error}); delete it if no run of "
            "another version of qexp goes on, and run the same command again"
        ) from None


def _file(outputs: Path, file: Path, tree: dict[str, Any]) -> Record:
    record: Record = tree["record"]
    last_seen = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat()
    assert record.error is not None
    error = record.error
    if tree["scheduler"] and (said := verdict(tree["scheduler"])):
        error = {**error, "message": f"{error['message']}, which says {said}"}
    record = replace(record, error=error, finished=last_seen)
    if not made_good(record, records_folder(outputs)):
        file_record(record, records_folder(outputs))
    if tree["ledger"] and record.sweep:
        ledger, job = Ledger(Path(tree["ledger"])), record.sweep["job"]
        if ledger.entry(job) is None:
            ledger.end(
                Entry(
                    job=job, words=tree["words"], code=FAILED, key=record.key, error=error["message"],
                    seconds=(record.finished_at - datetime.fromisoformat(record.started)).total_seconds(),
                    stages=list(record.stages),
                )
            )  # fmt: skip
    file.unlink(missing_ok=True)
    file.with_suffix(".lease").unlink(missing_ok=True)
    return record


def going_on(outputs: Path) -> int:
    """Number of runs that go on, as far as this machine can tell."""
    return sum(is_claimed(file.with_suffix(".lease")) for file in running_folder(outputs).glob("*.json"))
