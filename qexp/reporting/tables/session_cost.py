"""Columns of memory and load time, in all tables of engines and of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qexp.reporting.costs import session_numbers
from qexp.reporting.table import MEBIBYTE, NOT_REQUESTED, joined

SESSION_COLUMNS = ("memory (MiB)", "load (s)")
MEANING = "Memory is what the loaded engine adds; load goes from file to first answer."


def has_sessions(engines: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether memory or load time of any engine was measured."""
    return any(session_numbers(found) for found in engines)


def session_cells(found: Mapping[str, Any]) -> tuple[str, str]:
    """Return memory and load time of an engine for the columns :data:`SESSION_COLUMNS`."""
    numbers = session_numbers(found)
    memory, seconds = numbers.get("memory"), numbers.get("load_time")
    return (
        NOT_REQUESTED if memory is None else f"{memory / MEBIBYTE:.1f}",
        NOT_REQUESTED if seconds is None else f"{seconds:.2f}",
    )


def session_notes(engines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return why engines have no memory or load time, with their names where others have another reason."""
    names: dict[str, list[str]] = {}
    for name, found in engines.items():
        if reason := found.get("session", {}).get("reason"):
            names.setdefault(reason, []).append(name)
    of = {why: f" of {joined(each)}" if len(each) < len(engines) else "" for why, each in names.items()}
    return [f"Memory or load time{which} not measured: {why}." for why, which in of.items()]
