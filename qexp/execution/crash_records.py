"""Records of runs that are killed.

    outputs/running/<run>.json     pending Record of an active run: its Record if it were killed now
    outputs/running/<run>.lease    lease held by the run's process
    outputs/running/<run>.burial   lease held by the process that writes the Record of a dead run

A process that is killed with SIGKILL, by a scheduler or by the out-of-memory killer cannot write its Record.
The next process that looks (another run, the end of the sweep, a report) finds the lease expired, and writes
the pending Record to the Records.
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
from qexp.execution.slurm import REQUEUED, slurm_job_state
from qexp.execution.sweep_log import JobResult, SweepLog
from qexp.records.record import (
    RUNNING,
    Record,
    records_folder,
    save_record,
    was_retried_successfully,
    write_text,
)
from qexp.records.schema import Failure

KILLED = "Killed"
"""Error type in the Record of a run that was killed."""
FIRST = "before its first stage"


@dataclass(frozen=True)
class PendingRecord:
    """File with the pending Record of an active run."""

    file: Path
    sweep_log: Path | None
    """Folder of the sweep's log; None for a single run."""

    def write(self, record: Record, words: list[str]) -> None:
        """Replace the pending Record.

        Args:
            record: Record of the run if it were killed now.
            words: Overrides of the job in its sweep.

        Raises:
            StoreError: The outputs cannot be written.
        """
        tree = {
            "record": json.loads(record.to_json()),
            "ledger": str(self.sweep_log) if self.sweep_log else None,
            "words": words,
            "scheduler": scheduler_id(),
        }
        write_text(self.file, json.dumps(tree))


@contextmanager
def pending_record(outputs: Path, sweep_log: Path | None) -> Iterator[PendingRecord]:
    """Hold a file for the pending Record of this run.

    The file is deleted when the block ends or raises. It stays after a ``SystemExit`` from SIGTERM, which
    counts as a kill, unless the scheduler has put the job back into its queue.

    Raises:
        StoreError: The outputs cannot be written.
    """
    folder = running_folder(outputs)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    with writing(folder):
        make_folder(folder)
        with claimed(folder / f"{name}.lease", lambda: None):
            pending = PendingRecord(folder / f"{name}.json", sweep_log)
            try:
                yield pending
            except SystemExit as end:
                if end.code == REQUEUED:
                    pending.file.unlink(missing_ok=True)
                raise
            except BaseException:
                pending.file.unlink(missing_ok=True)
                raise
            pending.file.unlink(missing_ok=True)


def running_folder(outputs: Path) -> Path:
    """Return the folder of the pending Records of active runs."""
    return outputs / RUNNING


def killed_failure(when: str) -> Failure:
    """Return the failure for the Record of a killed run; ``when`` is a phrase such as ``in 2-fp32``."""
    where = f"{socket.gethostname()}, process {os.getpid()}"
    if job := scheduler_id():
        where += f", SLURM job {job}"
    message = f"killed {when}: no more word from {where}"
    return {"type": KILLED, "message": message, "traceback": ""}


def scheduler_id() -> str | None:
    """Return the id of the SLURM job that this process belongs to, or None."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    return os.environ.get("SLURM_JOB_ID")


def record_dead_runs(outputs: Path, over: SweepLog | None = None) -> list[Record]:
    """Write the Records of runs that were killed, and return them.

    Args:
        outputs: Folder for everything a run writes.
        over: A sweep whose processes have all ended.

    Raises:
        StoreError: A Record or a sweep log cannot be written, or a pending Record cannot be read.
    """
    records = []
    for file in sorted(running_folder(outputs).glob("*.json")):
        with suppress(FileNotFoundError):  # the run ended, or another process wrote its Record
            if is_claimed(file.with_suffix(".lease")) and not _belongs_to(over, file):
                continue
            with claimed(file.with_suffix(".burial"), lambda: None):
                records.append(_write_record(outputs, file, _read(file)))
    return records


def _belongs_to(sweep_log: SweepLog | None, file: Path) -> bool:
    return sweep_log is not None and bool(_read(file)["ledger"] == str(sweep_log.folder))


def _read(file: Path) -> dict[str, Any]:
    """Read a pending Record as :meth:`PendingRecord.write` wrote it, with ``record`` parsed."""
    try:
        tree: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {**tree, "record": Record.from_json(json.dumps(tree["record"]))}
    except (ValueError, LookupError, TypeError, StoreError) as error:
        raise StoreError(
            f"{file}: not the last words of a run ({type(error).__name__}: {error}); delete it if no run of "
            "another version of qexp goes on, and run the same command again"
        ) from None


def _write_record(outputs: Path, file: Path, tree: dict[str, Any]) -> Record:
    record: Record = tree["record"]
    last_seen = datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat()
    assert record.error is not None
    error = record.error
    if tree["scheduler"] and (state := slurm_job_state(tree["scheduler"])):
        error = {**error, "message": f"{error['message']}, which says {state}"}
    record = replace(record, error=error, finished=last_seen)
    if not was_retried_successfully(record, records_folder(outputs)):
        save_record(record, records_folder(outputs))
    if tree["ledger"] and record.sweep:
        sweep_log, job = SweepLog(Path(tree["ledger"])), record.sweep["job"]
        if sweep_log.entry(job) is None:
            sweep_log.end(
                JobResult(
                    job=job,
                    words=tree["words"],
                    code=FAILED,
                    key=record.key,
                    error=error["message"],
                    seconds=(record.finished_at - datetime.fromisoformat(record.started)).total_seconds(),
                    stages=list(record.stages),
                )
            )
    file.unlink(missing_ok=True)
    file.with_suffix(".lease").unlink(missing_ok=True)
    return record


def count_running(outputs: Path) -> int:
    """Count the active runs, as far as this machine can tell."""
    return sum(is_claimed(file.with_suffix(".lease")) for file in running_folder(outputs).glob("*.json"))
