"""How long one call takes: percentiles over many, after a warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], int]
"""Gives nanoseconds that never go backwards."""


@dataclass(frozen=True)
class Latency:
    """Time of one call over a batch."""

    p50_ms: float
    """Median, in milliseconds."""
    p90_ms: float
    """90th percentile, in milliseconds."""
    p99_ms: float
    """99th percentile, in milliseconds; with fewer than 100 runs close to the slowest."""
    samples_per_second: float
    """Rows of the batch over the median."""
    runs: int
    """Timed calls."""


def measure(
    call: Callable[[], object],
    *,
    rows: int,
    runs: int,
    warmup: int = 3,
    clock: Clock = time.perf_counter_ns,
) -> Latency:
    """Time ``call``.

    Args:
        call: What to time; its result is thrown away.
        rows: Samples that one call works through.
        runs: Timed calls, at least 1.
        warmup: Calls before them that are not timed.
        clock: Source of nanoseconds; tests bring their own.
    """
    return measure_alternating({"": call}, rows=rows, runs=runs, warmup=warmup, clock=clock)[""]


def measure_alternating(
    calls: Mapping[str, Callable[[], object]],
    *,
    rows: int,
    runs: int,
    warmup: int = 3,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Latency]:
    """Time several calls in turns, so that a machine that heats up or is shared slows all of them alike.

    Arguments are those of :func:`measure`; every call gets the whole warm-up and ``runs`` timed turns.
    """
    if runs < 1 or rows < 1 or warmup < 0:
        raise ValueError(f"runs and rows are at least 1, warmup at least 0; got {runs}, {rows}, {warmup}")
    for _ in range(warmup):
        for call in calls.values():
            call()
    elapsed: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            start = clock()
            call()
            elapsed[name].append(clock() - start)
    return {name: _latency(nanoseconds, rows) for name, nanoseconds in elapsed.items()}


def _latency(nanoseconds: Sequence[int], rows: int) -> Latency:
    p50, p90, p99 = (float(value) for value in np.percentile(np.asarray(nanoseconds) / 1e6, (50, 90, 99)))
    return Latency(p50, p90, p99, rows / (p50 / 1e3), len(nanoseconds))
