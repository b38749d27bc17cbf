from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import binom

from qexp.deploy.timing import (
    LEAST_RUNS,
    LEAST_WHEN_LATE,
    TimingEffort,
    is_stable,
    measure,
    measure_alternating,
)


class Clock:
    """Time that passes only when a call says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def takes(self, *milliseconds: float):
        turns = iter(milliseconds)

        def call() -> None:
            self.now += int(next(turns) * 1e6)

        return call


def test_percentiles_are_numpys_and_the_warm_up_does_not_count():
    clock = Clock()
    times = [float(n) for n in np.random.default_rng(0).permutation(100) + 1]
    latency = measure(clock.takes(500, 500, *times), rows=8, runs=100, warmup=2, clock=clock)
    expected = np.percentile(times, [50, 90, 99])
    assert [latency.p50_ms, latency.p90_ms, latency.p99_ms] == pytest.approx(list(expected))
    assert latency.samples_per_second == pytest.approx(8 / 0.0505)
    assert latency.runs == 100


def test_calls_take_turns():
    clock, order = Clock(), []

    def called(name, milliseconds):
        def call():
            order.append(name)
            clock.now += milliseconds * 1_000_000

        return call

    got = measure_alternating(
        {"fp32": called("f", 4), "int8": called("q", 1)}, TimingEffort(3, 1), rows=1, clock=clock
    )
    assert "".join(order) == "fq" * 4
    assert (got["fp32"].p50_ms, got["int8"].p50_ms) == (4.0, 1.0)


def test_real_clock():
    latency = measure(lambda: time.sleep(0.002), rows=1, runs=3, warmup=0)
    assert 2 <= latency.p50_ms <= latency.p90_ms <= latency.p99_ms


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"rows": 0}, {"warmup": -1}])
def test_senseless_counts_are_refused(wrong):
    with pytest.raises(ValueError, match="at least"):
        measure(lambda: None, **{"rows": 1, "runs": 1, "warmup": 0} | wrong)


def timed(effort, **times):
    """Calls that take these milliseconds, in turns; the last of them goes on for ever."""
    clock = Clock()
    calls = {name: clock.takes(*each, *[each[-1]] * 200) for name, each in times.items()}
    return measure_alternating(calls, effort, rows=1, clock=clock)


def test_a_shape_is_done_when_every_median_is_stable():
    noisy = [10.0, 20.0] * 10
    got = timed(TimingEffort(100, 0, adaptive=True), steady=[5.0], noisy=[*noisy, 15.0])
    assert got["steady"].runs == got["noisy"].runs
    assert 20 < got["steady"].runs < 100
    assert timed(TimingEffort(100, 0, adaptive=True), steady=[5.0])["steady"].runs == LEAST_RUNS
    assert timed(TimingEffort(100, 0), steady=[5.0])["steady"].runs == 100
    assert timed(TimingEffort(30, 0, adaptive=True), noisy=[10.0, 20.0] * 15)["noisy"].runs == 30


def test_time_runs_out_but_not_before_a_few_runs():
    assert timed(TimingEffort(100, 0, seconds=1.0), slow=[100.0])["slow"].runs == 10
    assert timed(TimingEffort(100, 0, seconds=1.0), slow=[5000.0])["slow"].runs == LEAST_WHEN_LATE
    assert timed(TimingEffort(100, 0, seconds=1.0), a=[50.0], b=[50.0])["a"].runs == 10


@pytest.mark.parametrize(("seconds", "calls"), [(None, 3), (100.0, 3), (16.0, 2), (1.0, 1)])
def test_a_warm_up_takes_its_share_of_the_time(seconds, calls):
    clock, starts = Clock(), []

    def call():
        starts.append(clock.now)
        clock.now += 2_000_000_000

    measure_alternating({"": call}, TimingEffort(1, 3, seconds=seconds), rows=1, clock=clock)
    assert len(starts) == calls + 1


def test_batches_that_take_turns_are_timed_as_often():
    assert timed(TimingEffort(100, 0, adaptive=True, batches=8), steady=[5.0])["steady"].runs == 16
    assert timed(TimingEffort(30, 0, seconds=1.0, batches=16), slow=[1000.0])["slow"].runs == 16


@pytest.mark.parametrize("count", [6, 7, 10, 11, 30, 101])
def test_the_interval_of_a_median_holds_it_in_95_of_100(count):
    """Of times 1 to n the interval's ends are its ranks; the oracle is scipy's binomial distribution."""
    wide = [rank for rank in range(1, count // 2 + 1) if is_stable_with(count, rank)]
    covered, narrower = (1 - 2 * binom.cdf(max(wide) - 1 + more, count, 0.5) for more in (0, 1))
    assert covered >= 0.95 > narrower


def is_stable_with(count, rank):
    """Whether the interval reaches no further out than to ``rank`` from both ends: those outside are far."""
    times = np.full(count, 100.0)
    times[: rank - 1], times[count - rank + 1 :] = 1.0, 1000.0
    return is_stable(times)


def test_few_times_have_no_interval():
    assert not is_stable([1.0] * 5)
    assert is_stable([1.0] * 6)
