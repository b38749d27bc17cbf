"""The benchmark stage: results that it keeps when an audit fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qexp.artifacts.types import Graph
from qexp.config import DeployEngines
from qexp.deploy.benchmark import EngineBenchmark
from qexp.deploy.engine import Info
from qexp.deploy.hardware import Host
from qexp.deploy.timing import TimingEffort
from qexp.errors import DeployError
from qexp.pipeline.stages.benchmark import _audit, _limited, _Round, _session
from tests.conftest import experiment
from tests.support.fake_engines import FakeEngine


class Silent:
    """An engine whose runtime does not tell."""

    inputs = ("x",)

    def __init__(self, error: DeployError | None) -> None:
        self.error = error

    def audit(self, _: Any) -> None:
        if self.error is not None:
            raise self.error


def test_an_audit_that_fails_is_a_problem_and_costs_no_times() -> None:
    bench = EngineBenchmark({}, TimingEffort(3, 0))
    bench.latency["a/int8"] = {}
    batch = {"x": np.zeros((1, 2))}
    assert _audit("a/int8", Silent(DeployError("no shapes")), batch, bench) is None  # type: ignore[arg-type]
    assert bench.problems == {"a/int8": {"audit": "no shapes"}}
    assert "a/int8" in bench.latency


def test_an_engine_that_tells_nothing_is_no_problem() -> None:
    bench = EngineBenchmark({}, TimingEffort(3, 0))
    assert _audit("a/int8", Silent(None), {"x": np.zeros((1, 2))}, bench) is None  # type: ignore[arg-type]
    assert bench.problems == {}


@pytest.mark.parametrize(
    ("sizes", "rows", "timed"),
    [((1, 32), 8, (1,)), ((1, 8, 32), 8, (1, 8)), ((16, 32), 8, (16,)), ((32, 16), None, (32, 16))],
)
def test_a_limit_leaves_large_batches_out_but_never_all(
    sizes: tuple[int, ...], rows: int | None, timed: tuple[int, ...]
) -> None:
    deploy = experiment("task=mrpc", f"deploy.batch_sizes={list(sizes)}").deploy
    assert isinstance(deploy, DeployEngines)
    assert _limited(deploy, rows).batch_sizes == timed


@pytest.mark.parametrize(
    ("device", "runs", "reason"),
    [
        ("cpu", 3, "budget.benchmark_runs=3 is less than 10"),
        ("a GPU", None, "it computes on a GPU, not in the memory of the process"),
    ],
)
def test_an_engine_that_is_not_measured_has_a_reason(
    device: str, runs: int | None, reason: str, tmp_path: Path
) -> None:
    engine = FakeEngine(info=Info("torch_int8", "1", device, "int8", 1, 0.0))
    least = _Round("1x8", {"torch_int8/int8": engine}, [{"input_ids": np.zeros((1, 8), np.int64)}])
    host = Host("cpu", 1, 1, ())
    found = _session(least, "torch_int8/int8", Graph(tmp_path, "key"), host=host, benchmark_runs=runs)
    assert found == {"memory_bytes": None, "load_seconds": None, "reason": reason}
    assert engine.seen == []
