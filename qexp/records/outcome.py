"""Outcome of a run for readers, who tell a run that was interrupted from one that failed.

A Record has the status ``failed`` for both, and the type of what ended the run.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from qexp.records.record import Record

Outcome = Literal["ok", "failed", "interrupted"]
GOES_ON = "interrupted; the same command goes on from here"
"""What Ctrl-C leaves, where the run itself did not say from which step it goes on."""
INTERRUPTION = KeyboardInterrupt.__name__
"""Type of the error of a run that was interrupted."""


def outcome(record: Record) -> Outcome:
    """Return whether a run came to its end, failed, or was interrupted with Ctrl-C."""
    interrupted = record.error is not None and record.error["type"] == INTERRUPTION
    return "interrupted" if interrupted and record.status == "failed" else record.status


def outcome_of_several(records: Collection[Record]) -> Literal["failed", "interrupted"]:
    """Return what became of runs without a result: ``interrupted`` if all were, else ``failed``."""
    interrupted = [outcome(record) == "interrupted" for record in records]
    return "interrupted" if interrupted and all(interrupted) else "failed"


def reason(record: Record) -> str:
    """Return the type and the first line of the error of a failed run; how to go on after an interruption."""
    error = record.error
    if error is None:
        return "no error was recorded"
    message = next(iter(error["message"].strip().splitlines()), error["type"])
    if error["type"] == INTERRUPTION:
        return GOES_ON if message == INTERRUPTION else message
    return f"{error['type']}: {message}" if message != error["type"] else error["type"]
