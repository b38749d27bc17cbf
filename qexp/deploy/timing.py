"""How long one call takes: percentiles over many, after a warm-up, until the median is known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Clock = Callable[[], int]
"""Gives nanoseconds that never go backwards."""

LEAST_RUNS = 10
"""Timed calls before a median may count as stable."""
TOLERANCE = 0.02
"""A median is stable when both ends of its confidence interval are that close to it, as a share of it."""
OUTSIDE = 0.025
"""Most probability that the median is beyond one end of its interval, which then holds it in 95 %."""
LEAST_WHEN_LATE = 5
"""Timed calls that are made however long they take."""
WARMUP_SHARE = 0.25
"""Part of the time for a shape that its warm-up may take."""


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


@dataclass(frozen=True)
class Effort:
    """How often calls are timed, each of them."""

    runs: int
    """At most that many timed calls, at least 1."""
    warmup: int = 3
    """At most that many calls before them that are not timed."""
    adaptive: bool = False
    """Stop as soon as every median is stable; else take all runs."""
    seconds: float | None = None
    """Time for all calls together, after which none but the first few are timed; null is no limit."""
    batches: int = 1
    """Batches that take turns: calls stop early only when each was timed as often as the others."""

    def __post_init__(self) -> None:
        if self.runs < 1 or self.warmup < 0 or self.batches < 1:
            raise ValueError(
                "runs and batches are at least 1, warmup at least 0; "
                f"got {self.runs}, {self.batches}, {self.warmup}"
            )

    def is_enough(self, elapsed: Mapping[str, Sequence[int]], seconds: float) -> bool:
        """Whether to stop before all runs, after calls that took ``elapsed`` nanoseconds each."""
        count = len(next(iter(elapsed.values())))
        if count % self.batches:
            return False
        if self.seconds is not None and seconds >= self.seconds and count >= LEAST_WHEN_LATE:
            return True
        return self.adaptive and count >= LEAST_RUNS and all(map(is_stable, elapsed.values()))


def is_stable(times: Sequence[float]) -> bool:
    """Whether the 95 % interval of the median lies within :data:`TOLERANCE` of it.

    The interval has no assumption on how times are distributed: its ends are order statistics whose ranks
    follow from the binomial distribution with p = 1/2 (Conover, Practical Nonparametric Statistics, 3rd
    edition, section 3.2). Fewer than 6 times have no such interval.

    Args:
        times: In any unit, in any order.
    """
    count, ordered = len(times), np.sort(np.asarray(times, np.float64))
    lower = _rank(count)
    if lower < 1:
        return False
    low, high = ordered[lower - 1], ordered[count - lower]
    median = float(np.median(ordered))
    return bool(max(high - median, median - low) <= TOLERANCE * median)


def _rank(count: int) -> int:
    """Rank from 1 of the lower end of the median's interval among ``count`` times; 0 where there is none."""
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
) -> Latency:
    """Time ``call``.

    Args:
        call: What to time; its result is thrown away.
        rows: Samples that one call works through.
        runs: Timed calls, at least 1.
        warmup: Calls before them that are not timed.
        clock: Source of nanoseconds; tests bring their own.
    """
    return measure_alternating({"": call}, Effort(runs, warmup), rows=rows, clock=clock)[""]


def measure_alternating(
    calls: Mapping[str, Callable[[], object]],
    effort: Effort,
    *,
    rows: int,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Latency]:
    """Time several calls in turns, so that a machine that heats up or is shared slows all of them alike.

    Every call gets the same number of turns, in the warm-up and on the clock.

    Args:
        calls: What to time, by name, at least one.
        effort: How many turns.
        rows: Samples that one call works through, at least 1.
        clock: Source of nanoseconds; tests bring their own.
    """
    if rows < 1:
        raise ValueError(f"rows is at least 1; got {rows}")
    begun = clock()
    for _ in _warmup(effort, lambda: (clock() - begun) / 1e9):
        for call in calls.values():
            call()
    elapsed: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(effort.runs):
        for name, call in calls.items():
            start = clock()
            call()
            elapsed[name].append(clock() - start)
        if effort.is_enough(elapsed, (clock() - begun) / 1e9):
            break
    return {name: _latency(nanoseconds, rows) for name, nanoseconds in elapsed.items()}


def _warmup(effort: Effort, seconds: Callable[[], float]) -> Iterator[int]:
    """Turns of the warm-up: the first in any case, others while there is time."""
    for turn in range(effort.warmup):
        if turn and effort.seconds is not None and seconds() >= WARMUP_SHARE * effort.seconds:
            return
        yield turn


def _latency(nanoseconds: Sequence[int], rows: int) -> Latency:
    p50, p90, p99 = (float(value) for value in np.percentile(np.asarray(nanoseconds) / 1e6, (50, 90, 99)))
    return Latency(p50, p90, p99, rows / (p50 / 1e3), len(nanoseconds))
