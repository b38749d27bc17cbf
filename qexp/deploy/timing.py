"""Latency of calls: percentiles over many calls, after a warm-up, until the median is stable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], int]
"""Returns nanoseconds that never go backwards."""

LEAST_RUNS = 10
"""Minimum number of timed calls before a median may count as stable."""
TOLERANCE = 0.02
"""Largest relative distance of a stable median from either end of its confidence interval."""
OUTSIDE = 0.025
"""Largest probability that the median lies beyond one end of its interval, which covers it in 95 %."""
LEAST_WHEN_LATE = 5
"""Minimum number of timed calls, however long they take."""
WARMUP_SHARE = 0.25
"""Largest share of a shape's time budget that its warm-up may take."""


@dataclass(frozen=True)
class LatencyStats:
    """Latency of one call over a batch."""

    p50_ms: float
    """Median, in milliseconds."""
    p90_ms: float
    """90th percentile, in milliseconds."""
    p99_ms: float
    """99th percentile, in milliseconds; close to the slowest call with fewer than 100 runs."""
    samples_per_second: float
    """Rows of the batch divided by the median."""
    runs: int
    """Number of timed calls."""


@dataclass(frozen=True)
class TimingEffort:
    """Limits on the number of calls and on their total duration."""

    runs: int
    """Maximum number of timed calls of each function, at least 1."""
    warmup: int = 3
    """Maximum number of untimed calls before them."""
    adaptive: bool = False
    """Whether to stop as soon as every median is stable; otherwise all runs are taken."""
    seconds: float | None = None
    """Time budget for all calls together, after which only the first few are timed; null is no limit."""
    batches: int = 1
    """Number of batches in rotation: calls stop early only when each batch was timed equally often."""

    def __post_init__(self) -> None:
        if self.runs < 1 or self.warmup < 0 or self.batches < 1:
            raise ValueError(
                "runs and batches are at least 1, warmup at least 0; "
                f"got {self.runs}, {self.batches}, {self.warmup}"
            )

    def is_enough(self, elapsed: Mapping[str, Sequence[int]], seconds: float) -> bool:
        """Return whether to stop before all runs.

        Args:
            elapsed: Nanoseconds of each timed call so far, by name.
            seconds: Time since the start, including the warm-up.
        """
        count = len(next(iter(elapsed.values())))
        if count % self.batches:
            return False
        if self.seconds is not None and seconds >= self.seconds and count >= LEAST_WHEN_LATE:
            return True
        return self.adaptive and count >= LEAST_RUNS and all(map(is_stable, elapsed.values()))


def is_stable(times: Sequence[float]) -> bool:
    """Return whether the 95 % interval of the median lies within :data:`TOLERANCE` of it.

    The interval assumes nothing about the distribution of times: its ends are order statistics whose ranks
    follow from the binomial distribution with p = 1/2 (Conover, Practical Nonparametric Statistics, 3rd
    edition, section 3.2). Fewer than 6 times have no such interval.

    Args:
        times: Durations in any unit, in any order.
    """
    count, ordered = len(times), np.sort(np.asarray(times, np.float64))
    lower = _rank(count)
    if lower < 1:
        return False
    low, high = ordered[lower - 1], ordered[count - lower]
    median = float(np.median(ordered))
    return bool(max(high - median, median - low) <= TOLERANCE * median)


def _rank(count: int) -> int:
    """Return the rank, from 1, of the lower end of the median's interval among ``count`` times; 0 if none."""
    below = 0
    for rank in range(count):
        below += math.comb(count, rank)
        if below > OUTSIDE * 2**count:
            return rank
    return 0


def measure(
    call: Callable[[], object],
    *,
    rows: int,
    runs: int,
    warmup: int = 3,
    clock: Clock = time.perf_counter_ns,
) -> LatencyStats:
    """Time ``call`` alone.

    Args:
        call: Function to time; its result is discarded.
        rows: Number of samples that one call processes.
        runs: Number of timed calls, at least 1.
        warmup: Number of untimed calls before them.
        clock: Source of nanoseconds; tests pass their own.
    """
    return measure_alternating({"": call}, TimingEffort(runs, warmup), rows=rows, clock=clock)[""]


def measure_alternating(
    calls: Mapping[str, Callable[[], object]],
    effort: TimingEffort,
    *,
    rows: int,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, LatencyStats]:
    """Time several calls in alternation, so that a machine that heats up or is shared slows all alike.

    Every call gets the same number of turns, in the warm-up and on the clock.

    Args:
        calls: Functions to time, by name, at least one.
        effort: Limits on the number of turns.
        rows: Number of samples that one call processes, at least 1.
        clock: Source of nanoseconds; tests pass their own.

    Raises:
        ValueError: ``rows`` is less than 1.
    """
    if rows < 1:
        raise ValueError(f"rows is at least 1; got {rows}")
    beginning = clock()
    for _ in _warmup(effort, lambda: (clock() - beginning) / 1e9):
        for call in calls.values():
            call()
    elapsed: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(effort.runs):
        for name, call in calls.items():
            start = clock()
            call()
            elapsed[name].append(clock() - start)
        if effort.is_enough(elapsed, (clock() - beginning) / 1e9):
            break
    return {name: _latency(nanoseconds, rows) for name, nanoseconds in elapsed.items()}


def _warmup(effort: TimingEffort, seconds: Callable[[], float]) -> Iterator[int]:
    """Yield the turns of the warm-up: the first in any case, others while there is time."""
    for turn in range(effort.warmup):
        if turn and effort.seconds is not None and seconds() >= WARMUP_SHARE * effort.seconds:
            return
        yield turn


def _latency(nanoseconds: Sequence[int], rows: int) -> LatencyStats:
    p50, p90, p99 = (float(value) for value in np.percentile(np.asarray(nanoseconds) / 1e6, (50, 90, 99)))
    return LatencyStats(p50, p90, p99_ms=p99, samples_per_second=rows / (p50 / 1e3), runs=len(nanoseconds))
