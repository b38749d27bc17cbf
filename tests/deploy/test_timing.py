from __future__ import annotations

import time

import numpy as np
import pytest

from qexp.deploy.timing import measure, measure_alternating


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
        {"fp32": called("f", 4), "int8": called("q", 1)}, rows=1, runs=3, warmup=1, clock=clock
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
