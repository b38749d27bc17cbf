"""What the engines of a run cost: size, latency, memory and load time, by graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qexp.records.record import Record

SESSION = {"memory_bytes": "memory", "load_seconds": "load_time"}
"""Quantities of :class:`qexp.records.schema.SessionCost`, by its fields."""


def costs_of(record: Record, runtime: str) -> Iterator[tuple[tuple[str, str, str, str], float]]:
    """Yield quantity, graph, statistic and batch size of each cost, with its value.

    Args:
        record: Record of the run.
        runtime: Runtime whose memory and load time stand for the run: the first.
    """
    for graph, size in (record.bytes or {}).items():
        yield ("size", graph, "", ""), float(size)
    for graph, batches in (record.latency or {}).items():
        for batch, timing in batches.items():
            for name, value in timing.items():
                yield ("latency", graph, name, batch), float(value)  # type: ignore[arg-type]
    for graph in ("fp32", "int8"):
        for name, value in session_numbers(record.engines.get(f"{runtime}/{graph}", {})).items():
            yield (name, graph, "", ""), value


def session_numbers(found: Mapping[str, Any]) -> dict[str, float]:
    """Return ``memory`` in bytes and ``load_time`` in seconds of an engine, as far as they were measured."""
    session: Mapping[str, Any] = found.get("session", {})
    return {name: float(session[field]) for field, name in SESSION.items() if session.get(field) is not None}
