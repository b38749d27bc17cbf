"""What a benchmark keeps when an engine cannot tell of its work."""

from __future__ import annotations

from typing import Any

import numpy as np

from qexp.deploy.bench import Bench
from qexp.errors import DeployError
from qexp.stages.benchmark import _audit


class Silent:
    """An engine whose runtime does not tell."""

    inputs = ("x",)

    def __init__(self, error: DeployError | None) -> None:
        self.error = error

    def audit(self, _: Any) -> None:
        if self.error is not None:
            raise self.error


def test_an_audit_that_fails_is_a_problem_and_costs_no_times() -> None:
    bench = Bench({}, runs=3, warmup=0)
    bench.latency["a/int8"] = {}
    batch = {"x": np.zeros((1, 2))}
    assert _audit("a/int8", Silent(DeployError("no shapes")), batch, bench) is None  # type: ignore[arg-type]
    assert bench.problems == {"a/int8": {"audit": "no shapes"}}
    assert "a/int8" in bench.latency


def test_an_engine_that_tells_nothing_is_no_problem() -> None:
    bench = Bench({}, runs=3, warmup=0)
    assert _audit("a/int8", Silent(None), {"x": np.zeros((1, 2))}, bench) is None  # type: ignore[arg-type]
    assert bench.problems == {}
